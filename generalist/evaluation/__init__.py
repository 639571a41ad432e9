"""Accuracies with their n and interval, and the verdict on every image behind them."""

from generalist.evaluation.accuracy import TILE, measure
from generalist.evaluation.conditions import AtPoint, as_evaluated, learner_names, point_of, points
from generalist.evaluation.protocol import code_behind, evaluated_positions, protocol, subset
from generalist.evaluation.shards import Shard, Watch, attack_shard, shard_ranges
from generalist.evaluation.verdicts import Verdicts, combine_shards, evaluate

__all__ = [
    "TILE",
    "AtPoint",
    "Shard",
    "Verdicts",
    "Watch",
    "as_evaluated",
    "attack_shard",
    "code_behind",
    "combine_shards",
    "evaluate",
    "evaluated_positions",
    "learner_names",
    "measure",
    "point_of",
    "points",
    "protocol",
    "shard_ranges",
    "subset",
]
