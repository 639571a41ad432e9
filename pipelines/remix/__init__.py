"""Mixing a finished training anew: look at mixtures on the validation split, then take one on to the registry.

Nothing is trained. Mixtures are compared by `evaluation.selection_attack`, the best of them by the cascade of the
evaluation, all on the validation split; the test split sees the chosen one alone.
"""

from pipelines.remix.register_mixture import register_mixture
from pipelines.remix.sweep import Goal, RemixSweep, draw, place, sweep_mixtures, words

__all__ = ["Goal", "RemixSweep", "draw", "place", "register_mixture", "sweep_mixtures", "words"]
