"""A comparison in MLflow: one run, with its figures and its files."""

import re
import time
from collections.abc import Sequence
from pathlib import Path

from mlflow.entities import Metric

from generalist.comparison import HARMONIC, NATURAL, ROBUST, Comparison
from generalist.config import digest
from pipelines.tracking.mlflow_database import connect, experiment_id
from pipelines.tracking.runs import log
from pipelines.workspace import Workspace

COMPARED, FIGURES = "generalist.comparison", "generalist.comparison_figures"
"""Tags: the comparison's name, and the SHA-256 (hex) of its figures."""


def publish_comparison(workspace: Workspace, comparison: Comparison, files: Sequence[Path]) -> str:
    """Log a finished comparison and its files as a run, once for the same figures; return the run's id.

    Raises:
        BadInput: MLflow can't be reached, or its database can't be opened.
    """
    client = connect(workspace)
    experiment = experiment_id(workspace, client)
    figures = digest([training.model_dump(mode="json") for training in comparison.trainings])
    known = client.search_runs([experiment], f"tags.`{FIGURES}` = '{figures}' and attributes.status = 'FINISHED'")
    if known:
        return str(known[0].info.run_id)
    tags = {COMPARED: comparison.name, FIGURES: figures, "mlflow.note.content": f"`{comparison.command}`"}
    run = client.create_run(experiment, run_name=f"comparison {comparison.name}", tags=tags)
    now = int(time.time() * 1000)
    points = [
        Metric(f"{_key(row.title)}/{_key(name)}", row.spread(name).mean / 100, now, 0)
        for row in comparison.rows()
        for name in (NATURAL, ROBUST, HARMONIC)
    ]
    log(client, run.info.run_id, metrics=points)
    for path in files:
        client.log_artifact(run.info.run_id, str(path))
    client.set_terminated(run.info.run_id)
    return str(run.info.run_id)


def _key(title: str) -> str:
    """Return a title in the letters that MLflow takes in names of metrics."""
    return re.sub(r"[^\w.-]+", "_", title).strip("_")
