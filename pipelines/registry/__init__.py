"""The registered model: versions by file, aliases through gates, and the way back."""

from pipelines.registry.aliases import Move, promote, rollback
from pipelines.registry.champion_evidence import Reevaluate
from pipelines.registry.model_versions import KnownModels, Version, download, find
from pipelines.registry.registration import Registration, register

__all__ = [
    "KnownModels",
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
