"""Adversarial training as a saddle point problem (Madry et al., arXiv 1706.06083), in PyTorch."""

__version__ = "0.1.0"
