"""The steps of the pipeline that have no framework: data and configuration in, files out.

Training's own steps are `generalist.training.Trainer`; every door runs the same ones.
"""

from pipelines.steps.evaluating import evaluate_shard, evaluated, gathered, reevaluation, shards
from pipelines.steps.opening import check_source, dataset, opened_store, prepared, training
from pipelines.steps.writing import export_model, write_adversarial, write_records, write_report

__all__ = [
    "check_source",
    "dataset",
    "evaluate_shard",
    "evaluated",
    "export_model",
    "gathered",
    "opened_store",
    "prepared",
    "reevaluation",
    "shards",
    "training",
    "write_adversarial",
    "write_records",
    "write_report",
]
