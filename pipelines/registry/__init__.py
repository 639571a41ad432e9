"""The registered model: versions by file, aliases through gates, and the way back."""

from pipelines.registry.registration import Reevaluate, Registration, register
from pipelines.registry.versions import Found, Move, Version, download, find, promote, rollback

__all__ = [
    "Found",
    "Move",
    "Reevaluate",
    "Registration",
    "Version",
    "download",
    "find",
    "promote",
    "register",
    "rollback",
]
