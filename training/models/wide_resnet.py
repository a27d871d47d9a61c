"""WideResNet-34-10 (Zagoruyko and Komodakis, BMVC 2016): pre-activation blocks, five per stage."""

from torch import Tensor, nn

from training.models.activations import Activation

BLOCKS_PER_STAGE = 5  # (34 - 4) / 6


class PreActivationBlock(nn.Module):
    """BN-ReLU-conv twice and a shortcut: (n, inputs, h, w) -> (n, outputs, h / stride, w / stride)."""

    def __init__(self, inputs: int, outputs: int, stride: int, activation: Activation) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.projection = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if inputs != outputs else None
        self.activation = activation()

    def forward(self, features: Tensor) -> Tensor:
        active = self.activation(self.bn1(features))
        shortcut = features if self.projection is None else self.projection(active)
        return shortcut + self.conv2(self.activation(self.bn2(self.conv1(active))))


class WideResNet34(nn.Module):
    """images (n, 3, h, w) in [0, 1] -> logits (n, num_classes); stages of 1, 2, 4 times `width` channels.

    `final` (BN-ReLU) closes the third stage and stands apart so that FSR can follow it.
    """

    def __init__(self, num_classes: int, width: int = 160, activation: Activation = nn.ReLU) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.block1 = _stage(16, width, stride=1, activation=activation)
        self.block2 = _stage(width, 2 * width, stride=2, activation=activation)
        self.block3 = _stage(2 * width, 4 * width, stride=2, activation=activation)
        self.final = nn.Sequential(nn.BatchNorm2d(4 * width), activation())
        self.linear = nn.Linear(4 * width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        features = self.block3(self.block2(self.block1(self.conv1(images))))
        return self.linear(self.final(features).mean(dim=(2, 3)))


def _stage(inputs: int, outputs: int, stride: int, activation: Activation) -> nn.Sequential:
    first = PreActivationBlock(inputs, outputs, stride, activation)
    rest = (PreActivationBlock(outputs, outputs, 1, activation) for _ in range(BLOCKS_PER_STAGE - 1))
    return nn.Sequential(first, *rest)
