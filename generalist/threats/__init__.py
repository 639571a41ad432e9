"""Threats: what an adversary may do to an image, one file each norm or space. They differ here and nowhere else."""

from generalist.threats.contract import Ball as Ball
from generalist.threats.l1 import sparse_ascent as sparse_ascent
from generalist.threats.spaces.contract import Space as Space
from generalist.threats.threat import Threat as Threat
from generalist.threats.threat import ball_of as ball_of
from generalist.threats.threat import is_threat as is_threat
from generalist.threats.threat import symbol_of as symbol_of
from generalist.threats.threat import threat_from as threat_from
