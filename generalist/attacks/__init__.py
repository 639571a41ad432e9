"""Attacks."""
from generalist.attacks.gradient import attack_from
def autoattack(*a, **k): raise RuntimeError("pending")
