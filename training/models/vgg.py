"""VGG16 with batch norm (Simonyan and Zisserman, ICLR 2015), its head sized for small images."""

from torch import Tensor, nn

from training.models.activations import Activation

CONVOLUTIONS = (2, 2, 3, 3, 3)  # per block
WIDTHS = (1, 2, 4, 8, 8)  # times the width of the first block


class VGG16(nn.Module):
    """images (n, 3, h, w) in [0, 1] -> logits (n, num_classes)."""

    def __init__(self, num_classes: int, width: int = 64, activation: Activation = nn.ReLU) -> None:
        super().__init__()
        channels = 3
        for index, (convolutions, multiple) in enumerate(zip(CONVOLUTIONS, WIDTHS, strict=True), start=1):
            layers: list[nn.Module] = []
            for _ in range(convolutions):
                layers += [
                    nn.Conv2d(channels, multiple * width, 3, padding=1),
                    nn.BatchNorm2d(multiple * width),
                    activation(),
                ]
                channels = multiple * width
            self.add_module(f"block{index}", nn.Sequential(*layers))
        self.pool = nn.MaxPool2d(2, ceil_mode=True)  # so that images under 32 pixels keep a last one
        self.head = nn.Sequential(
            nn.Linear(channels, channels),
            activation(),
            nn.Linear(channels, channels),
            activation(),
            nn.Linear(channels, num_classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        features = images
        for index in range(1, len(CONVOLUTIONS) + 1):
            features = self.pool(self.get_submodule(f"block{index}")(features))
        return self.head(features.mean(dim=(2, 3)))
