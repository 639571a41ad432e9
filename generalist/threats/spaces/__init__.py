"""Threats that are no ball of pixels: what an adversary moves instead, one file each, found by its name."""
