"""Trains LeNet-5 on MNIST in plain PyTorch to a test accuracy of 99 %, for comparison in ``whole_run.py``.

    python benchmarks/torch_lenet.py mnist.npz [--loader]

Network, optimiser, schedule and batches are those of ``configs/lenet5_mnist.py`` as ``whole_run.py`` runs it. Batches
are indexed from one tensor, which is fast. With ``--loader`` they come from a DataLoader, as in most scripts.
"""

import sys
import time
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

EPOCHS, BATCH, RATE, TARGET = 12, 128, 0.1, 0.99


def load(path: str) -> tuple[torch.Tensor, ...]:
    """The normalised digits, padded to 32x32, and the labels of the training and test set."""
    with np.load(path) as arrays:
        sets = [(arrays[f"images_{part}"], arrays[f"labels_{part}"]) for part in ("train", "test")]
    tensors = []
    for images, labels in sets:
        pixels = F.pad(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255, (2, 2, 2, 2))
        tensors += [pixels, torch.from_numpy(labels).long()]
    mean, std = tensors[0].mean(), tensors[0].std()
    return (tensors[0] - mean) / std, tensors[1], (tensors[2] - mean) / std, tensors[3]


def main() -> None:
    started = time.perf_counter()
    torch.manual_seed(0)
    images, labels, test_images, test_labels = load(sys.argv[1])
    model = nn.Sequential(
        *(nn.Conv2d(1, 6, 5), nn.Tanh(), nn.AvgPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.Tanh(), nn.AvgPool2d(2)),
        *(nn.Flatten(), nn.Linear(400, 120), nn.Tanh(), nn.Linear(120, 84), nn.Tanh(), nn.Linear(84, 10)),
    )
    kernels = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in model.parameters() if parameter.ndim == 1]
    groups = [{"params": kernels, "weight_decay": 5e-4}, {"params": others}]
    optimizer = torch.optim.SGD(groups, RATE, momentum=0.9, nesterov=True)
    steps = EPOCHS * (len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)

    def batches() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        if "--loader" in sys.argv:
            dataset = torch.utils.data.TensorDataset(images, labels)
            yield from torch.utils.data.DataLoader(dataset, BATCH, shuffle=True, drop_last=True)
        else:
            for rows in torch.randperm(len(images)).split(BATCH):
                if len(rows) == BATCH:
                    yield images[rows], labels[rows]

    for epoch in range(EPOCHS):
        for x, y in batches():
            optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
            schedule.step()
        with torch.no_grad():
            answers = torch.cat([model(part).argmax(1) for part in test_images.split(500)])
        accuracy = (answers == test_labels).float().mean().item()
        print(f"epoch {epoch + 1}: test accuracy {accuracy:.2%}", flush=True)
        if accuracy >= TARGET:
            break
    print(f"test accuracy {accuracy:.2%} after {epoch + 1} epochs, in {time.perf_counter() - started:.1f} s")


if __name__ == "__main__":
    main()
