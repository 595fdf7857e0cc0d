"""U-Net and SegNet in plain PyTorch, with the layers of ``models.create``, for ``train_step_contenders.py``."""

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CONV = {2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
NORM = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
POOL = {2: nn.MaxPool2d, 3: nn.MaxPool3d}


class UNet(nn.Module):
    """Ronneberger et al., 2015, of any width and depth, for images (``rank=2``) or volumes (``rank=3``)."""

    def __init__(
        self, width: float, num_classes: int, *, rank: int = 2, depth: int = 4, padding: int = 0, batch_norm: bool
    ) -> None:
        super().__init__()
        channels = [int(64 * 2**stage * width) for stage in range(depth + 1)]

        def twice(before: int, after: int) -> nn.Sequential:
            layers: list[nn.Module] = []
            for inputs in (before, after):
                layers += [CONV[rank](inputs, after, 3, padding=padding, bias=not batch_norm)]
                layers += [NORM[rank](after)] * batch_norm + [nn.ReLU(inplace=True)]
            return nn.Sequential(*layers)

        self.down = nn.ModuleList(map(twice, [1, *channels], channels))
        self.pool = POOL[rank](2)
        highs = channels[::-1]
        self.up = nn.ModuleList(TRANSPOSED[rank](a, b, 2, 2) for a, b in itertools.pairwise(highs))
        self.join = nn.ModuleList(twice(2 * after, after) for after in highs[1:])
        self.output = CONV[rank](channels[0], num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(batch, 1, *space)`` to ``(batch, classes, *space)``."""
        kept = []
        for stage in self.down:
            x = stage(self.pool(x) if kept else x)
            kept.append(x)
        for skip, up, join in zip(kept[-2::-1], self.up, self.join, strict=True):
            x = up(x)
            for axis in range(2, x.ndim):
                skip = skip.narrow(axis, (skip.shape[axis] - x.shape[axis]) // 2, x.shape[axis])
            x = join(torch.cat([skip, x], dim=1))
        return self.output(x)


class SegNet(nn.Module):
    """Badrinarayanan et al., 2017, of any width: unpooling with the positions of the maxima."""

    def __init__(self, width: float, num_classes: int, stages: Sequence[int] = (2, 2, 3, 3, 3)) -> None:
        super().__init__()
        encoder, decoder, channels = [], [], 3

        def unit(before: int, after: int) -> nn.Sequential:
            norm = nn.BatchNorm2d(after)
            return nn.Sequential(nn.Conv2d(before, after, 3, padding=1, bias=False), norm, nn.ReLU(inplace=True))

        for stage, count in enumerate(stages):
            widths = [channels, *[int(min(512, 64 * 2**stage) * width)] * count]
            encoder.append(nn.Sequential(*map(unit, widths, widths[1:])))
            mirrored = list(map(unit, widths[:0:-1], widths[-2::-1]))
            if stage == 0:
                mirrored[-1] = nn.Sequential(nn.Conv2d(widths[1], num_classes, 3, padding=1))
            decoder.insert(0, nn.Sequential(*mirrored))
            channels = widths[-1]
        self.encoder, self.decoder = nn.ModuleList(encoder), nn.ModuleList(decoder)

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(batch, 3, height, width)`` to ``(batch, classes, height, width)``."""
        pooled = []
        for stage in self.encoder:
            x, indices = F.max_pool2d(stage(x), 2, return_indices=True)
            pooled.append(indices)
        for stage, indices in zip(self.decoder, reversed(pooled), strict=True):
            x = stage(F.max_unpool2d(x, indices, 2))
        return x
