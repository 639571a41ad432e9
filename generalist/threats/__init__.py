"""Threats: what an adversary may do to an image, one file each norm. Norms differ here and nowhere else."""

from generalist.threats.contract import Ball, Threat, ball_of, threat_from
from generalist.threats.l1 import sparse_ascent

__all__ = ["Ball", "Threat", "ball_of", "sparse_ascent", "threat_from"]
