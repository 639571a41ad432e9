"""The steps of the pipeline that have no framework: data and configuration in, files out.

Training's own steps are `generalist.training.Trainer`; every door runs the same ones.
"""

from pipelines.steps.evaluating import build_evaluation, combine_shards, evaluate_shard, reevaluation, shards
from pipelines.steps.opening import check_source, dataset, open_store, prepare_data, training
from pipelines.steps.writing import export_model, write_adversarial, write_records, write_report

__all__ = [
    "build_evaluation",
    "check_source",
    "combine_shards",
    "dataset",
    "evaluate_shard",
    "export_model",
    "open_store",
    "prepare_data",
    "reevaluation",
    "shards",
    "training",
    "write_adversarial",
    "write_records",
    "write_report",
]
