"""Moves of an expert's weights while its gradients are taken; each file here is one way, found by its name."""

from generalist.perturbations.contract import Perturbation

__all__ = ["Perturbation"]
