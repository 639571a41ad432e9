"""Accuracies with their n and interval, and the verdict on every image behind them."""

from generalist.evaluation.accuracy import TILE, measure
from generalist.evaluation.conditions import AtCondition, as_evaluated, condition_of, learner_names
from generalist.evaluation.protocol import code_behind, evaluated_positions, protocol, subset
from generalist.evaluation.shards import Shard, Watch, attack_shard, shard_ranges
from generalist.evaluation.verdicts import Verdicts, combine_shards, evaluate

__all__ = [
    "TILE",
    "AtCondition",
    "Shard",
    "Verdicts",
    "Watch",
    "as_evaluated",
    "attack_shard",
    "code_behind",
    "combine_shards",
    "condition_of",
    "evaluate",
    "evaluated_positions",
    "learner_names",
    "measure",
    "protocol",
    "shard_ranges",
    "subset",
]
