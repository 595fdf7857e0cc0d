"""The networks that ``train_step.py`` compares, and the measurements of each contender.

Run as a program with the name of a contender, it reads lines ``<network> <what>`` from standard input and answers each
with a line of JSON. Every step is the forward and backward pass of one batch with softmax cross-entropy, and an update
by SGD with momentum 0.9. That of DCGAN, two networks with other losses and Adam, is in ``dcgan_contenders.py``.

* ``ours``: ``models.create`` and ``train.make_step``.
* ``stock``: the same network with each layer replaced by Flax's own (``nnx.Conv``, ``nnx.BatchNorm``,
  ``nnx.max_pool``, ...), in the same step. This favours Flax, because ``nnx.jit`` would also traverse the modules.
* ``PyTorch``: the networks of ``tests/parity/torch_networks.py``, ``torch_segmentation.py`` and
  ``torch_detection.py``, and two of this module.
"""

import gc
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))  # cnn_jax and tests, also where they are not installed


@dataclass(frozen=True)
class Network:
    """A network of the table: its name in ``cnn_jax.models``, its batch sizes on a CPU and on a GPU, its options.

    ``labels`` is the spatial shape of the labels of one example: of a network that maps images to maps, that of a map.
    """

    title: str
    model: str
    batch: int
    gpu_batch: int
    shape: tuple[int, ...] = (224, 224, 3)
    classes: int = 1000
    options: dict[str, Any] = field(default_factory=dict)
    labels: tuple[int, ...] = ()


DCGAN = "dcgan"  # measured by dcgan_contenders.py
VOLUMES = {"width": 0.25, "depth": 3, "batch_norm": True}
NETWORKS = {
    "lenet_5": Network("LeNet-5", "lenet_5_modern", 128, 4096, (32, 32, 1), 10),
    "resnet_20": Network("ResNet-20", "resnet_20", 64, 1024, (32, 32, 3), 10),
    "alexnet": Network("AlexNet", "alexnet_torchvision", 16, 512),
    "vgg_a": Network("VGG-A", "vgg_a", 4, 64),
    "vgg_d": Network("VGG-D", "vgg_d", 4, 64),
    "googlenet": Network("GoogLeNet", "googlenet_torchvision", 8, 256),
    "resnet_18": Network("ResNet-18", "resnet_18", 8, 256),
    "resnet_50": Network("ResNet-50", "resnet_50", 4, 128, options={"stride": "v1.5"}),
    "u_net": Network("U-Net", "u_net", 4, 64, (188, 188, 1), 2, {"width": 0.25}, labels=(4, 4)),
    "u_net_3d": Network("3-D U-Net", "u_net_padded", 2, 16, (32, 48, 32, 1), 3, VOLUMES, labels=(32, 48, 32)),
    "segnet": Network("SegNet", "segnet", 4, 32, (96, 128, 3), 11, {"width": 0.25}, labels=(96, 128)),
    DCGAN: Network("DCGAN", "dcgan_generator", 64, 1024, (28, 28, 1)),
    "detector": Network("Detector, ResNet-18", "detector", 8, 64, (240, 320, 3), 7, {"width": 0.5}, labels=(60, 80)),
}
RATE, MOMENTUM, AUXILIARY = 1e-3, 0.9, 0.3


def batch_of(network: Network, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Random images or volumes of shape (batch, *space, channels), and labels of shape (batch, *network.labels)."""
    generator = np.random.default_rng(0)
    images = generator.standard_normal((size, *network.shape), np.float32)
    return images, generator.integers(0, network.classes, (size, *network.labels)).astype(np.int32)


def timed_ms(step: Callable[[], Any], seconds: float) -> float:
    """The median time of a call in milliseconds, over at least three calls after a first one, unless they are slow."""
    begun = time.perf_counter()
    step()
    first = time.perf_counter() - begun
    times = [first] if first > 20 else []
    while not times or (first <= 20 and len(times) < 3) or (sum(times) < seconds and len(times) < 500):
        begun = time.perf_counter()
        step()
        times.append(time.perf_counter() - begun)
    return 1e3 * statistics.median(times)


# --- JAX --------------------------------------------------------------------------------------------------------------


def jax_network(name: str, *, who: str, on_gpu: bool) -> Any:
    """The network with shapes instead of parameters."""
    import jax
    from flax import nnx

    from cnn_jax import models

    network = NETWORKS[name]
    if name == DCGAN:
        from dcgan_contenders import jax_network

        return jax_network(who).abstract_model

    def create() -> Any:
        model = models.create(
            network.model,
            num_classes=network.classes,
            input_shape=network.shape,
            dtype="bfloat16" if on_gpu else None,
            rngs=nnx.Rngs(jax.random.key(0)),
            **network.options,
        )
        if who != "stock":
            return model
        from stock_networks import exchanged

        return exchanged(model)

    return nnx.eval_shape(create)


def classifier_program(name: str, size: int, *, who: str, on_gpu: bool) -> tuple[Any, Any, Any]:
    """The function ``step(state, batch)``, the first state and the batch."""
    import jax
    from flax import nnx

    from cnn_jax import ops, train

    images, labels = (jax.device_put(array) for array in batch_of(NETWORKS[name], size))
    abstract = jax_network(name, who=who, on_gpu=on_gpu)
    graph, *shapes = nnx.split(abstract, nnx.Param, ...)
    heads = [f"{name}/fc2" for name in ("aux1", "aux2") if hasattr(abstract, name)]

    def loss(params: Any, model_state: Any, batch: Any, key: Any) -> Any:
        model = nnx.merge(graph, params, jax.tree.map(lambda leaf: leaf, model_state))
        logits, activations = model(batch["image"], train=True, rngs=key, return_activations=True)
        losses = ops.softmax_cross_entropy(logits, batch["label"])
        total = losses.mean()
        for head in heads:
            total += AUXILIARY * ops.softmax_cross_entropy(activations[head], batch["label"]).mean()
        metrics = {"loss": (losses.sum(), jax.numpy.float32(size))}
        return total, (metrics, nnx.state(model, nnx.Not(nnx.Param)))

    optimizer = train.create_optimizer("sgd", RATE, momentum=MOMENTUM)

    generator = np.random.default_rng(0)

    def drawn(path: Any, leaf: Any) -> Any:  # with NumPy, because compiling the initialisers takes long
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if leaf.ndim > 1:
            fan_in = max(1, leaf.size // leaf.shape[-1])
            return generator.standard_normal(leaf.shape, np.float32) * np.float32((1 / fan_in) ** 0.5)
        return (np.ones if "scale" in name or "var" in name else np.zeros)(leaf.shape, np.float32)

    variables = jax.device_put(jax.tree_util.tree_map_with_path(drawn, shapes))
    state = train.create_state(jax.random.key(0), *variables, optimizer)
    return train.make_step(loss, optimizer), state, {"image": images, "label": labels}


def measure_jax(name: str, what: str, *, who: str, seconds: float) -> dict[str, Any]:
    """Measures one compiled step per call (``what='step'``), or steps inside a compiled loop (``what='loop'``)."""
    import jax

    from cnn_jax import enable_native
    from cnn_jax.runtime.memory import release_freed_memory

    if who == "ours":
        enable_native()
    on_gpu = jax.default_backend() == "gpu"
    if what == "parameters":
        from flax import nnx

        params = nnx.state(jax_network(name, who=who, on_gpu=on_gpu), nnx.Param)
        return {"sizes": sorted(leaf.size for leaf in jax.tree.leaves(params))}
    size = NETWORKS[name].gpu_batch if on_gpu else NETWORKS[name].batch
    if name == DCGAN:
        from dcgan_contenders import jax_program

        one, state, batch = jax_program(size, who)
    else:
        one, state, batch = classifier_program(name, size, who=who, on_gpu=on_gpu)

    def steps(state: Any, count: Any, batch: Any) -> Any:
        if what == "step":
            return one(state, batch)
        metrics = jax.tree.map(lambda leaf: jax.numpy.zeros(leaf.shape), jax.eval_shape(one, state, batch)[1])
        return jax.lax.fori_loop(0, count, lambda _, carry: one(carry[0], batch), (state, metrics))

    begun = time.perf_counter()
    compiled = jax.jit(steps, donate_argnums=0).lower(state, 1, batch).compile()
    compile_seconds = time.perf_counter() - begun
    if who == "ours":
        release_freed_memory()  # as launch.py does

    def call(count: int) -> None:
        nonlocal state
        state, metrics = compiled(state, count, batch)
        jax.block_until_ready((state, metrics))

    count = 1
    milliseconds = timed_ms(lambda: call(count), seconds if what == "step" else 0)
    if what == "loop":
        count = max(1, min(50, round(1e3 * seconds / 3 / milliseconds)))
        if count > 1:
            milliseconds = timed_ms(lambda: call(count), seconds / 2) / count
    return {"milliseconds": milliseconds, "compile": compile_seconds, "batch": size}


# --- PyTorch ----------------------------------------------------------------------------------------------------------


def torch_network(name: str) -> Any:
    """The network in PyTorch, in training mode."""
    import torch
    import torch.nn.functional as F
    from torch import nn
    from torch_detection import Detector
    from torch_segmentation import SegNet, UNet

    from tests.parity import torch_networks

    class PaddedIdentity(nn.Module):
        """A shortcut without parameters: every second position, and zeros for the new channels."""

        def __init__(self, new: int) -> None:
            super().__init__()
            self.new = new

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, self.new))

    class ResNet20(nn.Module):
        """He et al., 2016, section 4.2."""

        def __init__(self) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
            self.bn1 = nn.BatchNorm2d(16)
            blocks: list[nn.Module] = []
            channels = 16
            for index, middle in enumerate((16, 16, 16, 32, 32, 32, 64, 64, 64)):
                block = torch_networks.BasicBlock(channels, middle, 2 if index in (3, 6) else 1)
                if middle != channels:
                    block.downsample = PaddedIdentity(middle - channels)
                blocks.append(block)
                channels = middle
            self.blocks = nn.Sequential(*blocks)
            self.fc = nn.Linear(64, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(self.blocks(F.relu(self.bn1(self.conv1(x)))).mean((2, 3)))

    def lenet_5() -> nn.Module:
        return nn.Sequential(
            *(nn.Conv2d(1, 6, 5), nn.Tanh(), nn.AvgPool2d(2)),
            *(nn.Conv2d(6, 16, 5), nn.Tanh(), nn.AvgPool2d(2)),
            *(nn.Flatten(), nn.Linear(400, 120), nn.Tanh(), nn.Linear(120, 84), nn.Tanh(), nn.Linear(84, 10)),
        )

    basic, bottleneck = torch_networks.BasicBlock, torch_networks.Bottleneck
    makers: dict[str, Callable[[], nn.Module]] = {
        "lenet_5": lenet_5,
        "resnet_20": ResNet20,
        "alexnet": lambda: torch_networks.AlexNet(1.0, 1000),
        "vgg_a": lambda: torch_networks.VGG("vgg_a", 1.0, 1000, (7, 7), batch_norm=False),
        "vgg_d": lambda: torch_networks.VGG("vgg_d", 1.0, 1000, (7, 7), batch_norm=False),
        "googlenet": lambda: torch_networks.GoogLeNet(1.0, 1000),
        "resnet_18": lambda: torch_networks.ResNet(basic, (2, 2, 2, 2), 1.0, 1000),
        "resnet_50": lambda: torch_networks.ResNet(bottleneck, (3, 4, 6, 3), 1.0, 1000),
        "u_net": lambda: UNet(0.25, 2, batch_norm=False),
        "u_net_3d": lambda: UNet(0.25, 3, rank=3, depth=3, padding=1, batch_norm=True),
        "segnet": lambda: SegNet(0.25, 11),
        "detector": lambda: Detector(0.5, 7),
    }
    torch.manual_seed(0)
    return makers[name]().train()


_better_layout: dict[str, str] = {}  # the faster layout of each network in eager mode


def torch_classifier_step(
    name: str, size: int, memory_format: Any, device: str, *, compiled: bool
) -> Callable[[], None]:
    """A function that makes one step."""
    import torch

    images, labels = batch_of(NETWORKS[name], size)
    targets = torch.from_numpy(labels.astype(np.int64)).to(device)
    model = torch_network(name).to(device).to(memory_format=memory_format)
    x = torch.from_numpy(np.moveaxis(images, -1, 1).copy()).to(device).contiguous(memory_format=memory_format)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=MOMENTUM)
    run = torch.compile(model) if compiled else model

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, dtype=torch.bfloat16, enabled=device == "cuda"):
            loss = torch.nn.functional.cross_entropy(run(x), targets)
            for head in getattr(model, "heads", []):
                loss = loss + AUXILIARY * torch.nn.functional.cross_entropy(head, targets)
        loss.backward()
        optimizer.step()

    return step


def measure_torch(name: str, what: str, *, seconds: float) -> dict[str, Any]:
    """Measures eager mode in the faster of both layouts (``what='eager'``), or torch.compile in it (``'compiled'``)."""
    import torch
    from dcgan_contenders import torch_networks, torch_step

    if what == "parameters":
        with torch.device("meta"):
            networks = torch_networks() if name == DCGAN else [torch_network(name)]
        return {"sizes": sorted(values.numel() for network in networks for values in network.parameters())}
    network = NETWORKS[name]
    on_gpu = torch.cuda.is_available() and os.environ.get("JAX_PLATFORMS") != "cpu"
    device = "cuda" if on_gpu else "cpu"
    torch.set_num_threads(os.cpu_count() or 1)
    size = network.gpu_batch if on_gpu else network.batch
    channels_last = torch.channels_last_3d if len(network.shape) == 4 else torch.channels_last
    layouts = {"contiguous": torch.contiguous_format, "channels_last": channels_last}
    if what == "compiled":
        layout = _better_layout.get(name, "channels_last")
        layouts = {layout: layouts[layout]}
    found: dict[str, float] = {}
    compile_seconds = 0.0
    for layout, memory_format in layouts.items():
        compiled = what == "compiled"
        if name == DCGAN:
            one = torch_step(size, memory_format, device, compiled=compiled)
        else:
            one = torch_classifier_step(name, size, memory_format, device, compiled=compiled)

        def step(one: Callable[[], None] = one) -> None:
            one()
            if on_gpu:
                torch.cuda.synchronize()

        begun = time.perf_counter()
        step()
        compile_seconds = time.perf_counter() - begun
        found[layout] = timed_ms(step, seconds / len(layouts))
    best = min(found, key=found.__getitem__)
    if what == "eager":
        _better_layout[name] = best
    answer = {"milliseconds": found[best], "layout": best, "batch": size}
    return answer | ({"compile": compile_seconds - found[best] / 1e3} if what == "compiled" else {})


# --- the process ------------------------------------------------------------------------------------------------------


def answer_questions(contender: str, seconds: float) -> None:
    """The main loop of a contender's process."""
    for line in sys.stdin:
        name, what = line.split()
        if contender == "PyTorch":
            answer = measure_torch(name, what, seconds=seconds)
        else:
            answer = measure_jax(name, what, who=contender, seconds=seconds)
        gc.collect()  # frees memory for the next contender
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    answer_questions(sys.argv[1], float(sys.argv[2]))
