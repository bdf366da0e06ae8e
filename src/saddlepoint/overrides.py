"""An override's text: what it sets, and how another command takes it."""

from __future__ import annotations

# A script that measures may not have what is in these parts of a training's config.
TRAININGS_OWN = ("monitor", "trainer", "training", "model")


def name_of(override: str) -> str:
    """The setting's name: threat.eps of ++threat.eps=0.2."""
    return override.lstrip("+~").partition("=")[0]


def top(override: str) -> str:
    """The first part of its name: threat."""
    return name_of(override).partition(".")[0]


def of_a_training(override: str) -> bool:
    """Whether it sets something that only a training has."""
    return top(override) in TRAININGS_OWN and "." in name_of(override)


def placeholder(deletion: str) -> str:
    """What lets a script take a setting away that only a training has."""
    return f"++{deletion[1:]}=0"


def for_any_script(override: str) -> str:
    """A training's setting with ++, because the config of a measuring script may lack it."""
    return f"++{override}" if of_a_training(override) and override[0] not in "+~" else override
