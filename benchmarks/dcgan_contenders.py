"""DCGAN for ``train_step_contenders.py``: a step of two networks that are trained against each other.

One step is that of the task ``generation``: noise is drawn, the discriminator takes a step of Adam on real and on
generated images, then the generator takes one. Images are 28x28 with one channel. PyTorch's step is that of its DCGAN
example, which computes the generated images once for both networks. All compute in float32, also on a GPU, because the
discriminator has no other type.
"""

from typing import Any

import numpy as np

SHAPE, NOISE, RATE, MOMENTUM = (28, 28, 1), 100, 2e-4, 0.5


def images(size: int) -> np.ndarray:
    """Random images."""
    return np.random.default_rng(0).integers(0, 256, (size, *SHAPE)).astype(np.uint8)


def jax_network(who: str) -> Any:
    """Both networks with the losses of the task, of this project's layers or, for ``stock``, of Flax's own."""
    import jax

    from cnn_jax import data
    from cnn_jax.tasks import Examples, Generation, default_config
    from cnn_jax.tasks.network import TaskNetwork

    class Stock(TaskNetwork):
        def create(self, key: Any) -> Any:
            from stock_networks import exchanged

            model: Any = super().create(key)
            for part in (model, model.discriminator.image, model.discriminator.score):
                exchanged(part)
            return model

        def model(self, params: Any, model_state: Any) -> Any:  # Flax updates only variables of the same trace
            return super().model(params, jax.tree.map(lambda leaf: leaf, model_state))

    config = default_config("generation")
    config.input_shape, config.noise_size = SHAPE, NOISE
    task = Generation(config, Examples("random", {"image": data.Field("image", SHAPE, "uint8")}))
    return (Stock if who == "stock" else TaskNetwork)(config, task, data.Preprocess.scaled(SHAPE))


def jax_program(size: int, who: str) -> tuple[Any, Any, Any]:
    """The function ``step(state, batch)``, the first state and the batch."""
    import jax
    import optax

    from cnn_jax import train

    network = jax_network(who)
    optimizer = train.create_optimizer("adam", RATE, momentum=MOMENTUM)
    step = network.step(optimizer, optax.constant_schedule(RATE), train.ONE_DEVICE)
    batch = jax.device_put({"image": images(size), "index": np.arange(size, dtype=np.int32)})
    return step, jax.jit(lambda key: network.init(key, optimizer))(jax.random.key(0)), batch


def torch_networks() -> tuple[Any, Any]:
    """The generator and the discriminator."""
    from torch import nn

    generator = nn.Sequential(
        *(nn.ConvTranspose2d(NOISE, 128, 7, bias=False), nn.BatchNorm2d(128), nn.ReLU(inplace=True)),
        *(nn.ConvTranspose2d(128, 64, 4, 2, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True)),
        *(nn.ConvTranspose2d(64, 1, 4, 2, 1, bias=False), nn.Tanh()),
    )
    discriminator = nn.Sequential(
        *(nn.Conv2d(1, 64, 4, 2, 1, bias=False), nn.LeakyReLU(0.2, inplace=True)),
        *(nn.Conv2d(64, 128, 4, 2, 1, bias=False), nn.BatchNorm2d(128), nn.LeakyReLU(0.2, inplace=True)),
        *(nn.Conv2d(128, 1, 7, bias=False), nn.Flatten()),
    )
    return generator, discriminator


def torch_step(size: int, memory_format: Any, device: str, *, compiled: bool) -> Any:
    """A function that makes one step."""
    import torch
    from torch import nn

    networks: list[Any] = []
    optimizers = []
    for network in torch_networks():
        for name, values in network.named_parameters():
            if values.ndim > 1 or name.endswith("weight"):
                nn.init.normal_(values, 0.0 if values.ndim > 1 else 1.0, 0.02)
        network.to(device).to(memory_format=memory_format)
        optimizers.append(torch.optim.Adam(network.parameters(), lr=RATE, betas=(MOMENTUM, 0.999)))
        networks.append(torch.compile(network) if compiled else network)
    generator, discriminator = networks
    of_generator, of_discriminator = optimizers
    stored = (
        torch.from_numpy(np.moveaxis(images(size), -1, 1).copy()).to(device).contiguous(memory_format=memory_format)
    )
    entropy, ones = nn.BCEWithLogitsLoss(), torch.ones(size, 1, device=device)
    zeros = torch.zeros_like(ones)

    def step() -> None:
        real = stored.float() / 127.5 - 1
        generated = generator(torch.randn(size, NOISE, 1, 1, device=device))
        of_discriminator.zero_grad(set_to_none=True)
        loss = entropy(discriminator(real), ones) + entropy(discriminator(generated.detach()), zeros)
        loss.backward()
        of_discriminator.step()
        of_generator.zero_grad(set_to_none=True)
        entropy(discriminator(generated), ones).backward()
        of_generator.step()

    return step
