"""Training: what is minimised (objectives), the loop (trainer), and what survives it (checkpoint)."""

from saddlepoint.training.trainer import Monitor, Trainer

__all__ = ["Monitor", "Trainer"]
