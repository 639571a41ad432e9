"""Accuracies with their n and interval, and the verdict on every image behind them."""

from generalist.evaluation.measuring import TILE, measure
from generalist.evaluation.protocol import chosen, code_behind, protocol, subset
from generalist.evaluation.shards import Shard, Watch, attack_shard, cuts
from generalist.evaluation.verdicts import Verdicts, evaluate, gathered

__all__ = [
    "TILE",
    "Shard",
    "Verdicts",
    "Watch",
    "attack_shard",
    "chosen",
    "code_behind",
    "cuts",
    "evaluate",
    "gathered",
    "measure",
    "protocol",
    "subset",
]
