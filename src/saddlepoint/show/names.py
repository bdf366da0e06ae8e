"""What attacks and training methods are called for people, and their colours."""

from __future__ import annotations

NAMES = {
    "standard": "Standard",
    "fgsm": "FGSM",
    "pgd": "PGD",
    "pgd_100": "PGD, 100 steps",
    "pgd_x20": "PGD, 20 restarts",
    "pgd_100_x20": "PGD, 100 steps, 20 restarts",
    "fgsm_rs": "FGSM, random start",
    "pgd_7": "PGD, 7 steps",
    "targeted": "Targeted",
    "autoattack": "AutoAttack",
    "apgd_t": "Targeted APGD",
    "square": "Square (no gradient)",
    "static": "Static",
    "trades": "TRADES",
    "cw": "CW",
    "cw_30": "CW, 30 steps",
    "cw_plus": "CW+",
    "natural": "Natural",
    "train_loss": "Training loss",
}


# The paper's colours, by training method: blue for natural, red for adversarial.
COLOURS = {
    "standard": "#2a6fbb",
    "fgsm": "#8a8a8a",
    "pgd": "#c8352c",
    "static": "#b8860b",
    "fgsm_rs": "#5b8c5a",
    "trades": "#7d4f9e",
}
TITLES = {
    "standard": "standard training",
    "static": "static adversarial examples",
    "fgsm_rs": "FGSM with random start",
    "trades": "TRADES",
}
OTHERS = ["#4b8f8c", "#a0522d", "#6b7a1e"]  # for your own methods
ATTACK_COLOURS = {"natural": "#3c3c3c", "fgsm": "#8a8a8a", "pgd": "#c8352c", "square": "#2a6fbb"}


def named(name: str) -> str:
    """Of an attack or a training method, for people."""
    return NAMES.get(name, name)


def title(training: str) -> str:
    return TITLES.get(training, f"{named(training)} training")


def colour(training: str) -> str:
    return COLOURS.get(training, OTHERS[sum(training.encode()) % len(OTHERS)])
