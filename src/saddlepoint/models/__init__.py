"""The paper's two families of networks. Both take images in [0, 1] and return logits."""

from saddlepoint.models.cnn import CNN
from saddlepoint.models.resnet import ResNet

__all__ = ["CNN", "ResNet"]
