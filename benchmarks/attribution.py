"""Compares attribution methods with the plain gradient of the same network, and with Captum, in one run.

    python benchmarks/attribution.py [--quick] [--seconds 2] [--images 64]

Each contender runs in turn on the same network with the same weights and images. Columns are milliseconds per batch,
the medians of CPU times, which other processes disturb less than wall times. Everything of this project is compiled
once, as users are told to do. ``fantasy_image`` (128 steps) is compared with 128 steps of plain gradients of the same
batch, and ``strongest_crops`` with the forward pass of 10,000 images, including the compilation of both. Captum is
measured if it is installed (``pip install captum``), on the same network
(VGG-A) built of PyTorch's modules; its ratios are above 1 if this project is faster.

Results are written to ``benchmarks/results/attribution-<machine>.md`` and ``.json``. With ``--quick`` the networks are
smaller and nothing is written.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))
import record

from cnn_jax.runtime.xla import apply_recommended_flags

apply_recommended_flags()

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from flax import nnx  # noqa: E402

from cnn_jax import attribution, models, nn  # noqa: E402

NETWORKS = {"vgg_a": (64, 0.25), "resnet_18": (64, 0.25)}  # the size of images, the width
STEPS, WINDOW = 10, 16
FANTASY_STEPS, STREAMED, ROUNDS = 128, 10_000, 3
METHODS: dict[str, Callable[..., Any]] = {
    "gradient": attribution.gradient,
    "saliency": attribution.saliency,
    "deconvnet": attribution.deconvnet,
    "guided_backpropagation": attribution.guided_backpropagation,
    "integrated_gradients": partial(attribution.integrated_gradients, steps=STEPS),
    "occlusion": partial(attribution.occlusion, window=WINDOW),
}
Run = Callable[[], Any]


def ours(model: nn.Sequence, x: np.ndarray, target: np.ndarray) -> dict[str, Run]:
    """The compiled methods, after their first call."""
    graph, state = nnx.split(model)
    device = jnp.asarray(x)

    def compiled(method: Callable[..., Any]) -> Run:
        run = jax.jit(lambda state, x, target: method(nnx.merge(graph, state), x, target))
        return lambda: jax.block_until_ready(run(state, device, target))

    return {name: compiled(method) for name, method in METHODS.items()}


def long_ones(model: nn.Sequence, x: np.ndarray, target: np.ndarray, *, quick: bool) -> dict[str, tuple[Run, Run]]:
    """The methods that take seconds, each with what it is compared with."""
    graph, state = nnx.split(model)
    steps, count = (8, 256) if quick else (FANTASY_STEPS, STREAMED)
    many = np.resize(x, (count, *x.shape[1:]))

    @jax.jit
    def fantasy(state: Any, x: jax.Array) -> jax.Array:
        return attribution.fantasy_image(nnx.merge(graph, state), x, target, decay=0.1, steps=steps).images

    @jax.jit
    def gradient_steps(state: Any, x: jax.Array) -> jax.Array:
        def step(x: jax.Array, _: None) -> tuple[jax.Array, None]:
            return x + 0.05 * attribution.gradient(nnx.merge(graph, state), x, target), None

        return jax.lax.scan(step, x, length=steps)[0]

    def crops() -> Any:
        return attribution.strongest_crops(model, many, "layer4_1_relu", batch_size=len(x))

    def forward() -> Any:
        run = jax.jit(lambda state, x: nnx.merge(graph, state)(x))
        return [np.asarray(run(state, many[start : start + len(x)])) for start in range(0, count, len(x))]

    return {
        f"fantasy_image of {len(x)} images, {steps} steps / as many gradient steps": (
            lambda: jax.block_until_ready(fantasy(state, x)),
            lambda: jax.block_until_ready(gradient_steps(state, x)),
        ),
        f"strongest_crops of {count:,} images / their forward pass": (crops, forward),
    }


def compare(pair: tuple[Run, Run]) -> list[float]:
    """The median CPU seconds of two contenders that run in turn."""
    times: tuple[list[float], list[float]] = ([], [])
    for run in pair:
        run()
    for _ in range(ROUNDS):
        for run, found in zip(pair, times, strict=True):
            start = time.process_time()
            run()
            found.append(time.process_time() - start)
    return [statistics.median(found) for found in times]


def captum(model: nn.Sequence, x: np.ndarray, target: np.ndarray) -> dict[str, Run]:
    """The same methods of Captum, for a sequence of convolutions, pools and dense layers."""
    import torch
    from captum.attr import Deconvolution, GuidedBackprop, IntegratedGradients, Occlusion, Saliency

    network = torch_network(model).eval()
    images = torch.from_numpy(x.transpose(0, 3, 1, 2).copy())
    expected = np.asarray(model(jnp.asarray(x[:2])))
    with torch.no_grad():
        np.testing.assert_allclose(network(images[:2]).numpy(), expected, rtol=1e-2, atol=1e-4)
    classes = torch.from_numpy(target)
    channels, window = images.shape[1], (WINDOW, WINDOW)
    explain = {
        "saliency": Saliency(network).attribute,
        "deconvnet": Deconvolution(network).attribute,
        "guided_backpropagation": GuidedBackprop(network).attribute,
        "integrated_gradients": partial(
            IntegratedGradients(network).attribute, n_steps=STEPS, internal_batch_size=len(x)
        ),
        "occlusion": partial(
            Occlusion(network).attribute, sliding_window_shapes=(channels, *window), strides=(channels, *window)
        ),
    }
    return {
        name: lambda method=method: method(images.clone().requires_grad_(), target=classes)
        for name, method in explain.items()
    }


def torch_network(model: nn.Sequence) -> Any:
    """A PyTorch network with the weights of a sequence of convolutions, ReLUs, max pools and dense layers."""
    import torch

    layers: list[Any] = []
    flattened: tuple[int, ...] = ()
    x = jnp.zeros((1, *model.input_shape))
    for name in model.names:
        layer, before = getattr(model, name), x.shape
        x = layer(x)
        if isinstance(layer, nn.Conv):
            kernel = np.asarray(layer.kernel[...]).transpose(3, 2, 0, 1)
            conv = torch.nn.Conv2d(kernel.shape[1], kernel.shape[0], kernel.shape[2:], padding=kernel.shape[2] // 2)
            layers.append(with_weights(conv, kernel, layer.bias[...]))
        elif isinstance(layer, nn.Linear):
            weight = np.asarray(layer.kernel[...]).T
            if isinstance(layers[-1], torch.nn.Flatten):  # the order of its outputs is (C, height, width) here
                weight = weight.reshape(len(weight), *flattened).transpose(0, 3, 1, 2).reshape(weight.shape)
            layers.append(with_weights(torch.nn.Linear(*weight.shape[::-1]), weight, layer.bias[...]))
        elif isinstance(layer, nn.MaxPool):
            layers.append(torch.nn.MaxPool2d(layer.window_shape, layer.strides))
        elif x.ndim < len(before):
            flattened = before[1:]
            layers.append(torch.nn.Flatten())
        elif not isinstance(layer, nn.Dropout):
            layers.append(torch.nn.ReLU())
    return torch.nn.Sequential(*layers)


def with_weights(layer: Any, weight: np.ndarray, bias: Any) -> Any:
    import torch

    layer.weight.data, layer.bias.data = torch.from_numpy(weight.copy()), torch.from_numpy(np.array(bias))
    return layer


def measure(contenders: dict[str, Run], seconds: float) -> dict[str, float]:
    """The median CPU time of each contender in milliseconds. They run in turn, so that load affects all of them."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for run in contenders.values():
        run()
    end = time.monotonic() + seconds * len(contenders)
    while time.monotonic() < end or min(map(len, times.values())) < 3:
        for name, run in contenders.items():
            start = time.process_time()
            run()
            times[name].append(1000 * (time.process_time() - start))
    return {name: statistics.median(values) for name, values in times.items()}


def network(name: str, images: int, *, quick: bool) -> tuple[nn.Sequence, np.ndarray, np.ndarray]:
    """A network with random weights, images and classes."""
    size, width = NETWORKS[name]
    size, width = (32, 0.125) if quick else (size, width)
    model = models.create(name, num_classes=10, input_shape=(size, size, 3), width=width)
    random = np.random.default_rng(0)
    return model, random.standard_normal((images, size, size, 3), np.float32), random.integers(0, 10, images)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small networks, no results written")
    parser.add_argument("--seconds", type=float, default=2, help="time per contender")
    parser.add_argument("--images", type=int, default=64)
    options = parser.parse_args()
    measured: dict[str, dict[str, float]] = {}
    compared: dict[str, list[float]] = {}
    load = os.getloadavg()[0]
    for name in NETWORKS:
        model, x, target = network(name, options.images, quick=options.quick)
        contenders = ours(model, x, target)
        if name == "vgg_a" and find_spec("captum"):
            contenders |= {f"Captum {method}": run for method, run in captum(model, x, target).items()}
        measured[name] = measure(contenders, options.seconds)
        print("\n".join(table(measured)))
    for name, pair in long_ones(model, x, target, quick=options.quick).items():
        compared[name] = compare(pair)
    print("\n".join(comparisons(compared)))
    packages = ["jax", "jaxlib", "flax", *(["torch", "captum"] if find_spec("captum") else [])]
    circumstances = record.circumstances(packages) | {
        "batch": f"{options.images} images",
        "load": f"{load:.1f} at the start",
    }
    if not options.quick:
        report = {"circumstances": circumstances, "measured": measured, "compared": compared}
        record.write("attribution", report, markdown)


def markdown(report: dict[str, Any]) -> str:
    lines = ["# Attribution", "", *(f"- {name}: {value}" for name, value in report["circumstances"].items()), ""]
    lines += ["Milliseconds of CPU time per batch, medians.", "", *table(report["measured"]), ""]
    lines += ["Seconds of CPU time, medians, of resnet_18.", "", *comparisons(report["compared"])]
    return "\n".join(lines)


def comparisons(compared: dict[str, list[float]]) -> list[str]:
    """One row per comparison: the seconds of both, and their ratio."""
    rows = [
        [name, *(f"{seconds:.1f}" for seconds in pair), f"{pair[0] / pair[1]:.2f}"] for name, pair in compared.items()
    ]
    return record.table(["method / what it is compared with", "s", "s", "ratio"], rows)


def table(measured: dict[str, dict[str, float]]) -> list[str]:
    """One row per network and method: the time, its ratio to the plain gradient, and that of Captum's time to it."""
    rows = []
    for name, times in measured.items():
        for method in METHODS:
            other = times.get(f"Captum {method}")
            rows.append(
                [
                    name,
                    method,
                    f"{times[method]:.1f}",
                    f"{times[method] / times['gradient']:.2f}",
                    f"{other / times[method]:.2f}" if other else "",
                ]
            )
    return record.table(["network", "method", "ms", "relative to the gradient", "Captum / ours"], rows)


if __name__ == "__main__":
    main()
