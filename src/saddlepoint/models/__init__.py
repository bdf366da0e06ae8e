"""The paper's networks, the one it borrows, and a wrapper for others. All take images in [0, 1] and return logits."""

from saddlepoint.models.architecture_b import ArchitectureB
from saddlepoint.models.cnn import CNN
from saddlepoint.models.normalized import Normalized
from saddlepoint.models.resnet import ResNet

__all__ = ["CNN", "ArchitectureB", "Normalized", "ResNet"]
