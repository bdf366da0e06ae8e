"""The paper's two families of networks, and a frame for others. All take images in [0, 1] and return logits."""

from saddlepoint.models.cnn import CNN
from saddlepoint.models.normalized import Normalized
from saddlepoint.models.resnet import ResNet

__all__ = ["CNN", "Normalized", "ResNet"]
