"""ResNet-18 for small images."""

from __future__ import annotations

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, ResNet

from plastic_cli.classifier.module import ImageShape, as_images


class SmallResNet18(ResNet):  # type: ignore[misc]
    """torchvision's ResNet-18 whose first convolution is 3 x 3, with stride 1 and without max pooling.

    He et al. 2016 use this beginning for the images of CIFAR-10. The input is rows of pixels, or images.
    """

    def __init__(self, image_shape: ImageShape, classes: int) -> None:
        super().__init__(BasicBlock, [2, 2, 2, 2], num_classes=classes)
        self.image_shape = image_shape
        self.conv1 = nn.Conv2d(image_shape[0], 64, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(self.conv1.weight, mode="fan_out", nonlinearity="relu")
        self.maxpool = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (batch, classes)."""
        logits: Tensor = super().forward(as_images(x, self.image_shape))
        return logits
