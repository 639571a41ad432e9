"""Attacks: what a loss and a threat make of an image, one file each, and the cascade of them."""

from generalist.attacks.apgd import apgd
from generalist.attacks.cascade import autoattack
from generalist.attacks.gradient import attack_from, fgsm, pgd
from generalist.attacks.losses import cross_entropy, fooled, margin
from generalist.attacks.square import square

__all__ = ["apgd", "attack_from", "autoattack", "cross_entropy", "fgsm", "fooled", "margin", "pgd", "square"]
