"""MLflow remembers: one run for each training, with parameters, metrics by epoch, origin, model and report."""

from pipelines.tracking.database import connect, experiment_id, migrate
from pipelines.tracking.facts import summary
from pipelines.tracking.model import model_of, sha256_of, stored_file
from pipelines.tracking.publishing import finished_runs, publish
from pipelines.tracking.tracker import ONNX_SHA256, Tracker, start

__all__ = [
    "ONNX_SHA256",
    "Tracker",
    "connect",
    "experiment_id",
    "finished_runs",
    "migrate",
    "model_of",
    "publish",
    "sha256_of",
    "start",
    "stored_file",
    "summary",
]
