"""Training: what is minimised (objectives), the loop (trainer), what is seen (monitor) and what stays (checkpoint)."""

from saddlepoint.training.monitor import Monitor
from saddlepoint.training.trainer import Trainer

__all__ = ["Monitor", "Trainer"]
