"""The paper's two families of networks, and the one it borrows. All take images in [0, 1] and return logits."""

from saddlepoint.models.architecture_b import ArchitectureB
from saddlepoint.models.cnn import CNN
from saddlepoint.models.resnet import ResNet

__all__ = ["CNN", "ArchitectureB", "ResNet"]
