"""Attacks: what a loss and a threat make of an image, one file each, and the cascade of them."""

from generalist.attacks.apgd import apgd
from generalist.attacks.cascade import autoattack
from generalist.attacks.fab import fab
from generalist.attacks.gradient import attack_from, fgsm, pgd
from generalist.attacks.losses import cross_entropy, fooled, margin
from generalist.attacks.square import square
from generalist.attacks.verdicts import Cascade, Standing, merge
from generalist.attacks.versions import VERSIONS

__all__ = [
    "VERSIONS",
    "Cascade",
    "Standing",
    "apgd",
    "attack_from",
    "autoattack",
    "cross_entropy",
    "fab",
    "fgsm",
    "fooled",
    "margin",
    "merge",
    "pgd",
    "square",
]
