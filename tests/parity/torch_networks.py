"""Networks in plain PyTorch, written from the papers' tables, with the module names of torchvision or timm."""

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def randomize(network: nn.Module, seed: int) -> nn.Module:
    """Sets random parameters, and statistics, scales and shifts as after training; sets evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.running_var):
                tensor.data.uniform_(0.5, 1.5, generator=generator)
            for tensor in (module.bias, module.running_mean):
                tensor.data.normal_(0, 0.3, generator=generator)
        elif isinstance(module, nn.Conv2d | nn.Linear):
            fan_in = module.weight[0].numel()
            module.weight.data.normal_(0, (1.5 / fan_in) ** 0.5, generator=generator)
            if module.bias is not None:
                module.bias.data.normal_(0, 0.3, generator=generator)
    return network.eval()


class AlexNet(nn.Module):
    """Krizhevsky, "One weird trick for parallelizing convolutional neural networks", 2014."""

    def __init__(self, width: float, num_classes: int) -> None:
        super().__init__()
        a, b, c, d, hidden = (int(channels * width) for channels in (64, 192, 384, 256, 4096))
        self.features = nn.Sequential(
            *(nn.Conv2d(3, a, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
            *(nn.Conv2d(a, b, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
            *(nn.Conv2d(b, c, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(c, d, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(d, d, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2)),
        )
        self.avgpool = nn.AdaptiveAvgPool2d((6, 6))
        self.classifier = nn.Sequential(
            *(nn.Dropout(), nn.Linear(d * 36, hidden), nn.ReLU()),
            *(nn.Dropout(), nn.Linear(hidden, hidden), nn.ReLU()),
            nn.Linear(hidden, num_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


class GroupedAlexNet(nn.Module):
    """The paper's network, in two groups and with response normalisation, as two lists of layers."""

    def __init__(self, width: float, num_classes: int, maps: tuple[int, int]) -> None:
        super().__init__()
        a, b, c, hidden = (int(channels * width) for channels in (96, 256, 384, 4096))
        norm = {"size": 5, "alpha": 5e-4, "beta": 0.75, "k": 2.0}  # PyTorch divides alpha by the size
        self.features = nn.Sequential(
            *(nn.Conv2d(3, a, 11, stride=4), nn.ReLU(), nn.LocalResponseNorm(**norm), nn.MaxPool2d(3, 2)),
            *(nn.Conv2d(a, b, 5, padding=2, groups=2), nn.ReLU(), nn.LocalResponseNorm(**norm), nn.MaxPool2d(3, 2)),
            *(nn.Conv2d(b, c, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(c, c, 3, padding=1, groups=2), nn.ReLU()),
            *(nn.Conv2d(c, b, 3, padding=1, groups=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
        )
        self.classifier = nn.Sequential(
            *(nn.Linear(b * maps[0] * maps[1], hidden), nn.ReLU(), nn.Dropout()),
            *(nn.Linear(hidden, hidden), nn.ReLU(), nn.Dropout()),
            nn.Linear(hidden, num_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).flatten(1))


VGG_TABLE = {"vgg_a": (1, 1, 2, 2, 2), "vgg_d": (2, 2, 3, 3, 3)}


def vgg_features(name: str, width: float, batch_norm: bool) -> tuple[nn.Sequential, int]:
    """The layers in Simonyan and Zisserman, 2015, table 1, and the number of channels at the end."""
    layers: list[nn.Module] = []
    channels = 3
    for count, published in zip(VGG_TABLE[name], (64, 128, 256, 512, 512), strict=True):
        for _ in range(count):
            out = int(published * width)
            norm = [nn.BatchNorm2d(out)] if batch_norm else []
            layers += [nn.Conv2d(channels, out, 3, padding=1), *norm, nn.ReLU()]
            channels = out
        layers.append(nn.MaxPool2d(2, 2))
    return nn.Sequential(*layers), channels


class VGG(nn.Module):
    """VGG with torchvision's names. The last maps may have another size than 7x7."""

    def __init__(self, name: str, width: float, num_classes: int, maps: tuple[int, int], batch_norm: bool) -> None:
        super().__init__()
        self.features, channels = vgg_features(name, width, batch_norm)
        self.avgpool = nn.AdaptiveAvgPool2d(maps)
        hidden = int(4096 * width)
        self.classifier = nn.Sequential(
            *(nn.Linear(channels * maps[0] * maps[1], hidden), nn.ReLU(), nn.Dropout()),
            *(nn.Linear(hidden, hidden), nn.ReLU(), nn.Dropout()),
            nn.Linear(hidden, num_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


class TimmVGG(nn.Module):
    """VGG with timm's names: two convolutions and a linear layer."""

    def __init__(self, name: str, width: float, num_classes: int, maps: tuple[int, int], batch_norm: bool) -> None:
        super().__init__()
        self.features, channels = vgg_features(name, width, batch_norm)
        hidden = int(4096 * width)
        self.pre_logits = nn.Sequential(
            OrderedDict(
                fc1=nn.Conv2d(channels, hidden, maps), act1=nn.ReLU(), fc2=nn.Conv2d(hidden, hidden, 1), act2=nn.ReLU()
            )
        )
        self.head = nn.Sequential(
            OrderedDict(global_pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), fc=nn.Linear(hidden, num_classes))
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pre_logits(self.features(x)))


class BasicBlock(nn.Module):
    expansion = 1

    def __init__(self, channels: int, middle: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, middle, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(middle)
        self.conv2 = nn.Conv2d(middle, middle, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(middle)
        self.downsample = downsample(channels, middle, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """A bottleneck block with the stride in the 3x3 convolution."""

    expansion = 4

    def __init__(self, channels: int, middle: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, middle, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(middle)
        self.conv2 = nn.Conv2d(middle, middle, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(middle)
        self.conv3 = nn.Conv2d(middle, 4 * middle, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * middle)
        self.downsample = downsample(channels, 4 * middle, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
        return F.relu(self.bn3(self.conv3(y)) + (x if self.downsample is None else self.downsample(x)))


def downsample(channels: int, out: int, stride: int) -> nn.Module | None:
    if channels == out and stride == 1:
        return None
    return nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))


class ResNet(nn.Module):
    """He et al., 2016, table 1, with torchvision's and timm's names."""

    def __init__(
        self, block: type[BasicBlock | Bottleneck], blocks: tuple[int, ...], width: float, num_classes: int
    ) -> None:
        super().__init__()
        channels = int(64 * width)
        self.conv1 = nn.Conv2d(3, channels, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        for stage, count in enumerate(blocks):
            middle = int(64 * 2**stage * width)
            layer = []
            for index in range(count):
                layer.append(block(channels, middle, 2 if stage and not index else 1))
                channels = middle * block.expansion
            setattr(self, f"layer{stage + 1}", nn.Sequential(*layer))
        self.fc = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(F.relu(self.bn1(self.conv1(x))))
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
        return self.fc(x.mean((2, 3)))


class Unit(nn.Module):
    """A convolution with batch normalisation and ReLU, as in torchvision's GoogLeNet."""

    def __init__(self, channels: int, out: int, window: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, out, window, stride, padding=window // 2, bias=False)
        self.bn = nn.BatchNorm2d(out, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class Inception(nn.Module):
    """An inception block with a second 3x3 instead of the paper's 5x5, as in torchvision."""

    def __init__(self, channels: int, row: tuple[int, ...]) -> None:
        super().__init__()
        one, three_reduce, three, five_reduce, five, project = row
        self.branch1 = Unit(channels, one, 1)
        self.branch2 = nn.Sequential(Unit(channels, three_reduce, 1), Unit(three_reduce, three, 3))
        self.branch3 = nn.Sequential(Unit(channels, five_reduce, 1), Unit(five_reduce, five, 3))
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, 1, padding=1), Unit(channels, project, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)


class Head(nn.Module):
    """An auxiliary classifier."""

    def __init__(self, channels: int, width: float, num_classes: int) -> None:
        super().__init__()
        self.conv = Unit(channels, int(128 * width), 1)
        self.fc1 = nn.Linear(int(128 * width) * 16, int(1024 * width))
        self.fc2 = nn.Linear(int(1024 * width), num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(F.adaptive_avg_pool2d(x, (4, 4))).flatten(1)
        return self.fc2(F.dropout(F.relu(self.fc1(x)), 0.7, self.training))


GOOGLENET_TABLE = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}


class GoogLeNet(nn.Module):
    """Szegedy et al., 2015, table 1, with torchvision's names and its differences from the paper."""

    def __init__(self, width: float, num_classes: int, auxiliary_heads: bool = True) -> None:
        super().__init__()
        first, second = int(64 * width), int(192 * width)
        self.conv1 = Unit(3, first, 7, 2)
        self.maxpool1 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv2 = Unit(first, first, 1)
        self.conv3 = Unit(first, second, 3)
        self.maxpool2 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.maxpool3 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.maxpool4 = nn.MaxPool2d(2, 2, ceil_mode=True)
        channels = second
        self.aux1 = self.aux2 = None
        for name, published in GOOGLENET_TABLE.items():
            row = tuple(int(number * width) for number in published)
            setattr(self, f"inception{name}", Inception(channels, row))
            channels = row[0] + row[2] + row[4] + row[5]
            if auxiliary_heads and name == "4a":
                self.aux1 = Head(channels, width, num_classes)
            if auxiliary_heads and name == "4d":
                self.aux2 = Head(channels, width, num_classes)
        self.fc = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool2(self.conv3(self.conv2(self.maxpool1(self.conv1(x)))))
        x = self.maxpool3(self.inception3b(self.inception3a(x)))
        x = self.inception4a(x)
        self.heads = [self.aux1(x)] if self.aux1 else []
        x = self.inception4d(self.inception4c(self.inception4b(x)))
        self.heads += [self.aux2(x)] if self.aux2 else []
        x = self.inception5b(self.inception5a(self.maxpool4(self.inception4e(x))))
        return self.fc(x.mean((2, 3)))
