"""Threats: what an adversary may do to an image, one file each norm. Norms differ here and nowhere else."""

from generalist.threats.ball import Ball
from generalist.threats.l1 import sparse_ascent
from generalist.threats.threat import Threat, threat_from

__all__ = ["Ball", "Threat", "sparse_ascent", "threat_from"]
