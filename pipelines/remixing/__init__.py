"""Mixing a finished training anew: look at mixtures on the validation split, then take one on to the registry.

Nothing is trained. Mixtures are compared by `evaluation.choice`, the best of them by the cascade of the evaluation, all
on the validation split; the test split sees the chosen one alone.
"""

from pipelines.remixing.looking import Goal, Look, draw, look, place, words
from pipelines.remixing.taking_on import take_on

__all__ = ["Goal", "Look", "draw", "look", "place", "take_on", "words"]
