"""The registered model: versions by file, aliases through gates, and the way back."""

from pipelines.registry.aliases import Move, promote, rollback
from pipelines.registry.champion import Reevaluate
from pipelines.registry.registration import Registration, register
from pipelines.registry.versions import Found, Version, download, find

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
