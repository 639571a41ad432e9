"""The typed tree of `params.yaml`: reading, checking, showing."""

from generalist.config.quantity import Quantity
from generalist.config.reading import (
    canonical,
    check,
    digest,
    flattened,
    leaves,
    load,
    overridden,
    params_digest,
    preset_names,
    preset_path,
    to_yaml,
    with_effect,
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
from generalist.config.tuning import Choices, NaturalAtLeast, Range, TuningOptions

__all__ = [
    "Adam",
    "AdamW",
    "AttackOptions",
    "ChoiceOptions",
    "Choices",
    "Config",
    "DataOptions",
    "EngineOptions",
    "EvaluationOptions",
    "ExpertOptions",
    "GoBack",
    "MixingOptions",
    "ModelOptions",
    "NaturalAtLeast",
    "ObjectiveOptions",
    "Plugin",
    "Quantity",
    "Range",
    "Schedule",
    "Section",
    "Sgd",
    "Steps",
    "ThreatOptions",
    "TrainingOptions",
    "TuningOptions",
    "Weight",
    "canonical",
    "check",
    "digest",
    "flattened",
    "leaves",
    "load",
    "overridden",
    "params_digest",
    "preset_names",
    "preset_path",
    "to_yaml",
    "with_effect",
]
