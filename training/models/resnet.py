"""ResNet-18 and -50 for small images (He et al., CVPR 2016; 3x3 stem, no first pooling)."""

from collections.abc import Sequence

from torch import Tensor, nn

from training.models.activations import Activation


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: (n, inputs, h, w) -> (n, width, h / stride, w / stride)."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int, activation: Activation) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = _shortcut(inputs, width, stride)
        self.activation = activation()

    def forward(self, features: Tensor) -> Tensor:
        hidden = self.activation(self.bn1(self.conv1(features)))
        return self.activation(self.bn2(self.conv2(hidden)) + self.shortcut(features))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and a shortcut: (n, inputs, h, w) -> (n, 4 width, h / stride, w / stride)."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int, activation: Activation) -> None:
        super().__init__()
        outputs = self.expansion * width
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.shortcut = _shortcut(inputs, outputs, stride)
        self.activation = activation()

    def forward(self, features: Tensor) -> Tensor:
        hidden = self.activation(self.bn1(self.conv1(features)))
        hidden = self.activation(self.bn2(self.conv2(hidden)))
        return self.activation(self.bn3(self.conv3(hidden)) + self.shortcut(features))


Block = type[BasicBlock] | type[Bottleneck]


class ResNet(nn.Module):
    """images (n, 3, h, w) in [0, 1] -> logits (n, num_classes); stages of width 1, 2, 4, 8 times `width`."""

    def __init__(
        self,
        block: Block,
        blocks: Sequence[int],
        num_classes: int,
        width: int,
        activation: Activation,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.activation = activation()
        expansion = block.expansion
        self.layer1 = _stage(block, blocks[0], width, width, 1, activation)
        self.layer2 = _stage(block, blocks[1], width * expansion, 2 * width, 2, activation)
        self.layer3 = _stage(block, blocks[2], 2 * width * expansion, 4 * width, 2, activation)
        self.layer4 = _stage(block, blocks[3], 4 * width * expansion, 8 * width, 2, activation)
        self.linear = nn.Linear(8 * width * expansion, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        features = self.activation(self.bn1(self.conv1(images)))
        features = self.layer4(self.layer3(self.layer2(self.layer1(features))))
        return self.linear(features.mean(dim=(2, 3)))


class ResNet18(ResNet):
    """Two basic blocks per stage."""

    def __init__(self, num_classes: int, width: int = 64, activation: Activation = nn.ReLU) -> None:
        super().__init__(BasicBlock, (2, 2, 2, 2), num_classes, width, activation)


class ResNet50(ResNet):
    """3, 4, 6 and 3 bottleneck blocks."""

    def __init__(self, num_classes: int, width: int = 64, activation: Activation = nn.ReLU) -> None:
        super().__init__(Bottleneck, (3, 4, 6, 3), num_classes, width, activation)


def _stage(block: Block, count: int, inputs: int, width: int, stride: int, activation: Activation) -> nn.Sequential:
    first = block(inputs, width, stride, activation)
    rest = (block(width * block.expansion, width, 1, activation) for _ in range(count - 1))
    return nn.Sequential(first, *rest)


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    if stride == 1 and inputs == outputs:
        return nn.Sequential()
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
