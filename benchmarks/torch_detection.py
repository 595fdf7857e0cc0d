"""The detector of ``models.create`` on ResNet-18 in plain PyTorch, for ``train_step_contenders.py``."""

import torch.nn.functional as F
from torch import Tensor, nn

from tests.parity.torch_networks import BasicBlock


class Detector(nn.Module):
    """Maps of 16, 8 and 4 pixels a cell of a ResNet-18 without its last stage, joined from coarse to fine."""

    def __init__(self, width: float, outputs: int, features: int = 64) -> None:
        super().__init__()
        channels = [int(64 * 2**stage * width) for stage in range(3)]
        self.conv1 = nn.Conv2d(3, channels[0], 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(channels[0])
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        self.layers = nn.ModuleList(
            nn.Sequential(BasicBlock(before, after, 2 if stage else 1), BasicBlock(after, after, 1))
            for stage, (before, after) in enumerate(zip([channels[0], *channels], channels, strict=False))
        )

        def unit(convolution: nn.Module) -> nn.Sequential:
            return nn.Sequential(convolution, nn.BatchNorm2d(features), nn.ReLU(inplace=True))

        self.reduce = unit(nn.Conv2d(channels[2], features, 1, bias=False))
        self.enlarge = nn.ModuleList(nn.ConvTranspose2d(features, features, 2, 2, bias=False) for _ in range(2))
        self.lateral = nn.ModuleList(nn.Conv2d(count, features, 1, bias=False) for count in channels[1::-1])
        self.norm = nn.ModuleList(nn.BatchNorm2d(features) for _ in range(2))
        self.smooth = nn.ModuleList(unit(nn.Conv2d(features, features, 3, padding=1, bias=False)) for _ in range(2))
        self.head = nn.Conv2d(features, features, 3, padding=1)
        self.output = nn.Conv2d(features, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(batch, 3, height, width)`` to ``(batch, outputs, height / 4, width / 4)``."""
        x = self.maxpool(F.relu(self.bn1(self.conv1(x))))
        levels = []
        for layer in self.layers:
            x = layer(x)
            levels.append(x)
        x = self.reduce(x)
        for place, level in enumerate(levels[1::-1]):
            x = F.relu(self.norm[place](self.enlarge[place](x) + self.lateral[place](level)))
            x = self.smooth[place](x)
        return self.output(F.relu(self.head(x)))
