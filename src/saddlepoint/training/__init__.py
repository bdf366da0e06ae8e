"""Training: what is minimised (objectives), how (recipe, trainer), what is seen (monitor), what stays (checkpoint)."""

from saddlepoint.training.monitor import Monitor
from saddlepoint.training.recipe import Recipe
from saddlepoint.training.trainer import Trainer

__all__ = ["Monitor", "Recipe", "Trainer"]
