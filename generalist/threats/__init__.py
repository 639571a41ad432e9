"""Threats: what an adversary may do to an image, one file each norm. Norms differ here and nowhere else."""

from generalist.threats.contract import Ball as Ball
from generalist.threats.contract import Threat as Threat
from generalist.threats.contract import ball_of as ball_of
from generalist.threats.contract import threat_from as threat_from
from generalist.threats.l1 import sparse_ascent as sparse_ascent
