"""The typed tree of `params.yaml`: reading, checking, showing."""

from generalist.config.quantity import Quantity
from generalist.config.reading import (
    canonical,
    check,
    digest,
    flattened,
    load,
    preset_names,
    preset_path,
    to_yaml,
)
from generalist.config.schedule import Schedule
from generalist.config.section import Plugin, Section
from generalist.config.sections import (
    Adam,
    AdamW,
    AttackOptions,
    ChoiceOptions,
    DataOptions,
    EvaluationOptions,
    ExpertOptions,
    MixingOptions,
    ModelOptions,
    ObjectiveOptions,
    Sgd,
    Steps,
    ThreatOptions,
)
from generalist.config.training import EngineOptions, GoBack, TrainingOptions
from generalist.config.tree import Config, Weight

__all__ = [
    "Adam",
    "AdamW",
    "AttackOptions",
    "ChoiceOptions",
    "Config",
    "DataOptions",
    "EngineOptions",
    "EvaluationOptions",
    "ExpertOptions",
    "GoBack",
    "MixingOptions",
    "ModelOptions",
    "ObjectiveOptions",
    "Plugin",
    "Quantity",
    "Schedule",
    "Section",
    "Sgd",
    "Steps",
    "ThreatOptions",
    "TrainingOptions",
    "Weight",
    "canonical",
    "check",
    "digest",
    "flattened",
    "load",
    "preset_names",
    "preset_path",
    "to_yaml",
]
