"""Prompts from masks: the strategies, their mixtures, and the clicks that correct an answer."""

from specialsam.core.randomness import generator
from specialsam.prompts.corrections import correction_click, correction_clicks
from specialsam.prompts.strategies import (
    SEED_TITLES,
    STRATEGIES,
    Draw,
    Group,
    Strategy,
    check_mixture,
    draw,
    draw_mixed,
)

__all__ = [
    "SEED_TITLES",
    "STRATEGIES",
    "Draw",
    "Group",
    "Strategy",
    "check_mixture",
    "correction_click",
    "correction_clicks",
    "draw",
    "draw_mixed",
    "generator",
]
