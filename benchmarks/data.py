"""Compares how fast images reach the device with this project's data pipelines and with PyTorch's DataLoader.

    python benchmarks/data.py [--quick] [--seconds 4]

* MNIST-size: 60,000 random images of 28x28x1, normalised, in random order, in batches of 128.
* CIFAR-size: 50,000 images of 32x32x3, randomly mirrored, padded by 4 and cropped, normalised, in batches of 128.
* JPEGs: files of 500x375, made from scikit-learn's photographs; decoded, resized and cropped to 224x224, normalised, in
  batches of 32. Random resized crops and flips run on the device in this project, from images read as 256x256, and in
  the workers with Pillow in PyTorch, as in torchvision.

The time is for whole batches, ready on the device as normalised float32: ``in memory`` inside one compiled scan,
``stream`` through :class:`cnn_jax.data.Stream`. PyTorch uses a ``Dataset`` of single examples with the default
collation, without workers and with one for each core, and for data in memory also the faster but less common way: whole
batches by indexing one tensor. For comparison, the results have the rate at which training steps of ResNet-18 consume
images, at batch 8 and 224x224. A pipeline has to be faster than that, because both share the cores. Every number is a
median of runs. Results are written to ``benchmarks/results/data-<machine>.md`` and ``.json``.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))
import record

from cnn_jax.runtime.huge_pages import restart_with_huge_pages
from cnn_jax.runtime.xla import apply_recommended_flags

RUNS = 3
CORES = os.cpu_count() or 1


def make_jpegs(folder: Path, count: int) -> None:
    """Writes JPEG files of 500x375 in two classes, each a random part of a photograph with noise."""
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_sample_images

    random = np.random.default_rng(0)
    for number in range(count):
        photograph = load_images(load_sample_images)[number % 2]
        top, left = random.integers(0, 52), random.integers(0, 140)
        part = photograph[top : top + 375, left : left + 500].astype(np.int16)
        noisy = np.clip(part + random.integers(-8, 9, part.shape), 0, 255).astype(np.uint8)
        path = folder / str(number % 2) / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noisy).save(path, quality=90)


def load_images(loader: Callable[[], Any], kept: list = []) -> list:  # noqa: B006 - read from disk once
    """scikit-learn's photographs, read once."""
    if not kept:
        kept += loader().images
    return kept


# --- ours -------------------------------------------------------------------------------------------------------------


def ours_in_memory(images: Any, labels: Any, augment_calls: tuple[str, ...], batch_size: int, seconds: float) -> float:
    """Images per second for shuffling, gathering, augmentation and normalisation in one compiled scan."""
    import jax
    import jax.numpy as jnp

    from cnn_jax import data

    examples = jax.device_put({"image": images, "label": labels, "index": jnp.arange(len(images))})
    prepare = preparation(images.shape[1:], augment_calls)
    count = len(images) // batch_size

    @jax.jit
    def epoch(key: Any, first: Any) -> Any:
        rows = data.batch_indices(key, first, count, num_examples=len(images), batch_size=batch_size)

        def body(_: Any, step_and_rows: Any) -> tuple[Any, None]:
            step, rows = step_and_rows
            batch = {name: jnp.take(array, rows, axis=0) for name, array in examples.items()}
            return prepare(key, batch, step), None  # in the carry, so that XLA has to compute each whole batch

        batch = jnp.zeros((batch_size, *images.shape[1:]))
        return jax.lax.scan(body, batch, (first + jnp.arange(count), rows))[0]

    key = jax.random.key(0)
    jax.block_until_ready(epoch(key, 0))
    return rate(lambda: jax.block_until_ready(epoch(key, count)), count * batch_size, seconds)


def preparation(
    shape: tuple[int, ...], calls: tuple[str, ...], size: int | None = None
) -> Callable[[Any, Any, Any], Any]:
    """Augmentation and normalisation as in an experiment."""
    from cnn_jax import data
    from cnn_jax.data.augment import Augmentation

    augmentation = Augmentation(calls, num_classes=10)
    out = (size or shape[0], size or shape[1], shape[-1])
    normalise = data.Preprocess(out, mean=(0.5,) * shape[-1], std=(0.25,) * shape[-1])
    return lambda key, batch, step: normalise(augmentation(key, batch, step=step, epoch=0)["image"])


def ours_streamed(
    found: Any, calls: tuple[str, ...], batch_size: int, seconds: float, workers: int, size: int
) -> float:
    """Images per second from worker processes (0: threads), augmented and normalised on the device."""
    import jax

    from cnn_jax import data
    from cnn_jax.data.stream import sent_ahead

    prepare = jax.jit(preparation(found.image_shape, calls, size))
    stream, key = data.Stream(data.as_records(found), workers=workers), jax.random.key(0)
    batches = sent_ahead(stream.training_batches(key, batch_size=batch_size, first_step=0, last_step=10**6))
    numbered = iter(enumerate(batches))

    def one() -> None:
        step, batch = next(numbered)
        jax.block_until_ready(prepare(key, batch, step))

    result = steady_rate(one, batch_size, seconds)
    batches.close()
    return result


def resnet18_step(seconds: float) -> float:
    """Images per second that training steps of this project's ResNet-18 process, in batches of 8 on the device."""
    import jax
    import jax.numpy as jnp
    from flax import nnx

    from cnn_jax import models, ops, train

    def create() -> Any:
        return models.create("resnet_18", num_classes=1000, input_shape=(224, 224, 3), rngs=nnx.Rngs(0))

    graph = nnx.split(nnx.eval_shape(create), nnx.Param, ...)[0]

    def loss(params: Any, model_state: Any, batch: train.Batch, _key: Any) -> Any:
        model = nnx.merge(graph, params, model_state)
        losses = ops.softmax_cross_entropy(model(batch["image"], train=True), batch["label"])
        return losses.mean(), ({"loss": (losses.sum(), jnp.float32(len(losses)))}, nnx.state(model, nnx.Not(nnx.Param)))

    optimizer = train.create_optimizer("nesterov", 0.01)
    step = jax.jit(train.make_step(loss, optimizer), donate_argnums=0)
    _, params, model_state = nnx.split(create(), nnx.Param, ...)
    state = train.create_state(jax.random.key(0), params, model_state, optimizer)
    batch = {"image": jnp.ones((8, 224, 224, 3)), "label": jnp.zeros(8, jnp.int32)}

    def one() -> None:
        nonlocal state
        state = jax.block_until_ready(step(state, batch)[0])

    one()
    return rate(one, 8, seconds)


# --- PyTorch ----------------------------------------------------------------------------------------------------------


class TorchArrays:
    """A data set of single examples, as in most scripts, with CIFAR's flip and crop for colour images."""

    def __init__(self, images: Any, labels: Any) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        import torch

        image = torch.from_numpy(self.images[index]).permute(2, 0, 1).float().div_(255).sub_(0.5).div_(0.25)
        if image.shape[0] == 3:
            if torch.rand(()) < 0.5:
                image = image.flip(-1)
            image = torch.nn.functional.pad(image, (4, 4, 4, 4))
            top, left = torch.randint(0, 9, (2,)).tolist()
            image = image[:, top : top + 32, left : left + 32]
        return image, int(self.labels[index])


class TorchJpegs:
    """RandomResizedCrop(224), RandomHorizontalFlip, ToTensor, Normalize, as torchvision does them with Pillow."""

    def __init__(self, folder: str) -> None:
        self.paths = sorted(Path(folder).rglob("*.jpg"))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        import math
        import random

        import numpy as np
        import torch
        from PIL import Image

        path = self.paths[index]
        with Image.open(path) as file:
            image = file.convert("RGB")
        width, height = image.size
        for _ in range(10):
            area = width * height * random.uniform(0.08, 1)
            aspect = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
            w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if w <= width and h <= height:
                break
        left, top = random.randint(0, max(width - w, 0)), random.randint(0, max(height - h, 0))
        image = image.crop((left, top, left + w, top + h)).resize((224, 224), Image.Resampling.BILINEAR)
        if random.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        tensor = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float().div_(255)
        return tensor.sub_(0.5).div_(0.25), int(path.parent.name)


def torch_loader(dataset: Any, batch_size: int, seconds: float, workers: int) -> float:
    """Images per second from a DataLoader."""
    import torch

    options = {"persistent_workers": True, "prefetch_factor": 4, "multiprocessing_context": "spawn"}
    loader = torch.utils.data.DataLoader(
        dataset, batch_size, shuffle=True, drop_last=True, num_workers=workers, **(options if workers else {})
    )

    def forever() -> Iterator[Any]:
        while True:
            yield from loader

    batches = forever()
    return steady_rate(lambda: next(batches), batch_size, seconds)


def torch_tensor(images: Any, labels: Any, batch_size: int, seconds: float) -> float:
    """Images per second by indexing one tensor of all images, with one shift for a whole batch."""
    import torch

    pixels, classes = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(labels)

    def epoch() -> None:
        for rows in torch.randperm(len(pixels)).split(batch_size):
            batch = pixels[rows].float().div_(255).sub_(0.5).div_(0.25)
            if batch.shape[1] == 3:
                batch = torch.where((torch.rand(len(batch)) < 0.5)[:, None, None, None], batch.flip(-1), batch)
                padded = torch.nn.functional.pad(batch, (4, 4, 4, 4))
                top, left = torch.randint(0, 9, (2,)).tolist()
                batch = padded[:, :, top : top + 32, left : left + 32]
            _ = classes[rows]

    epoch()
    return rate(epoch, len(pixels), seconds)


# --- timing and the table ---------------------------------------------------------------------------------------------


def rate(work: Callable[[], Any], images: int, seconds: float) -> float:
    """Images per second: the median over three repetitions, each of at least a third of ``seconds``."""
    rates = []
    for _ in range(RUNS):
        began, count = time.perf_counter(), 0
        while time.perf_counter() - began < seconds / RUNS:
            work()
            count += images
        rates.append(count / (time.perf_counter() - began))
    return statistics.median(rates)


def steady_rate(one_batch: Callable[[], Any], batch_size: int, seconds: float) -> float:
    """Images per second of a stream, measured after batches that were read ahead have been used up."""
    began = time.perf_counter()
    one_batch()
    while time.perf_counter() - began < seconds / 2 or time.perf_counter() - began < 1:
        one_batch()
    return rate(one_batch, batch_size, seconds)


def measure(seconds: float, jpegs: int) -> dict[str, dict[str, float]]:
    """Task -> method -> images per second."""
    import numpy as np

    from cnn_jax import data

    random = np.random.default_rng(0)
    tasks: dict[str, dict[str, float]] = {}
    for task, count, shape, calls in (
        ("MNIST-size", 60_000, (28, 28, 1), ()),
        ("CIFAR-size", 50_000, (32, 32, 3), ("flip", "pad_and_crop")),
    ):
        images = random.integers(0, 256, (count, *shape), np.uint8)
        labels = random.integers(0, 10, count).astype(np.int32)
        found = data.Dataset.of_images(task, "train", images, labels, tuple("0123456789"))
        tasks[task] = {
            "ours, in memory": ours_in_memory(images, labels, calls, 128, seconds),
            "ours, stream, threads": ours_streamed(found, calls, 128, seconds, 0, shape[0]),
            "ours, stream, processes": ours_streamed(found, calls, 128, seconds, CORES, shape[0]),
            "PyTorch, DataLoader": torch_loader(TorchArrays(images, labels), 128, seconds, 0),
            "PyTorch, DataLoader, processes": torch_loader(TorchArrays(images, labels), 128, seconds, CORES),
            "PyTorch, one tensor": torch_tensor(images, labels, 128, seconds),
        }
        print(task, tasks[task], file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        make_jpegs(Path(folder), jpegs)
        calls = ("random_resized_crop(size=(224, 224))", "flip")
        found = data.open_set(f"folder:{folder}", "all", image_shape=(256, 256, 3))
        tasks["JPEGs"] = {
            "ours, stream, threads": ours_streamed(found, calls, 32, seconds, 0, 224),
            "ours, stream, processes": ours_streamed(found, calls, 32, seconds, CORES, 224),
            "PyTorch, DataLoader": torch_loader(TorchJpegs(folder), 32, seconds, 0),
            "PyTorch, DataLoader, processes": torch_loader(TorchJpegs(folder), 32, seconds, CORES),
        }
        print("JPEGs", tasks["JPEGs"], file=sys.stderr)
    tasks["JPEGs"]["what ResNet-18's steps take"] = resnet18_step(seconds)
    return tasks


def markdown(report: dict[str, Any]) -> str:
    """The report as a page."""
    lines = ["# From images to batches", ""]
    lines += [f"- {name}: {value}" for name, value in report["circumstances"].items()]
    lines += ["", "Images per second, written by `python benchmarks/data.py`, whose docstring has the details.", ""]
    for task, rates in report["images_per_second"].items():
        peer = max(value for way, value in rates.items() if way.startswith("PyTorch"))
        body = [[way, f"{value:,.0f}", f"{value / peer:.2f}"] for way, value in rates.items()]
        lines += [f"## {task}", "", *record.table(["method", "images/s", "relative to PyTorch's fastest"], body)]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="measure half a second each and write no results")
    parser.add_argument("--seconds", type=float, default=4, help="the duration of each measurement")
    arguments = parser.parse_args()
    restart_with_huge_pages()
    apply_recommended_flags(os.environ)
    load = os.getloadavg()[0]
    rates = measure(0.5 if arguments.quick else arguments.seconds, 64 if arguments.quick else 512)
    circumstances = {
        **record.circumstances(("jax", "jaxlib", "grain", "torch", "numpy", "pillow")),
        "load average before the run (the run itself adds to it)": f"{load:.2f}",
    }
    report = {"circumstances": circumstances, "images_per_second": rates}
    print(markdown(report))
    if not arguments.quick:
        record.write("data", report, markdown)


if __name__ == "__main__":
    main()
