"""Attacks: what a loss and a threat make of an image, one file each, and the cascade of them."""

from generalist.attacks.apgd import apgd as apgd
from generalist.attacks.attack_ensemble import autoattack as autoattack
from generalist.attacks.fab import fab as fab
from generalist.attacks.gradient import attack_from as attack_from
from generalist.attacks.gradient import pgd as pgd
from generalist.attacks.losses import cross_entropy as cross_entropy
from generalist.attacks.losses import margin as margin
from generalist.attacks.losses import misclassified as misclassified
from generalist.attacks.members import VERSIONS as VERSIONS
from generalist.attacks.result import AttackProgress as AttackProgress
from generalist.attacks.result import AutoAttackResult as AutoAttackResult
from generalist.attacks.result import merge as merge
from generalist.attacks.square import square as square
