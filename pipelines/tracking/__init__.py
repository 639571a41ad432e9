"""MLflow remembers: a run for each training, search and trial, with parameters, metrics, origin, model and report."""

from pipelines.tracking.logged_model import model_of, sha256_of, stored_file
from pipelines.tracking.mlflow_database import connect, experiment_id, migrate, runs_page
from pipelines.tracking.publishing import finished_runs, publish
from pipelines.tracking.relocation import relocate
from pipelines.tracking.run_metadata import WEIGHTS_SHA256, run_name, summary
from pipelines.tracking.study_tracker import StudyTracker, open_study
from pipelines.tracking.tracker import MANIFEST_SHA256, ONNX_SHA256, Tracker, start

__all__ = [
    "MANIFEST_SHA256",
    "ONNX_SHA256",
    "WEIGHTS_SHA256",
    "StudyTracker",
    "Tracker",
    "connect",
    "experiment_id",
    "finished_runs",
    "migrate",
    "model_of",
    "open_study",
    "publish",
    "relocate",
    "run_name",
    "runs_page",
    "sha256_of",
    "start",
    "stored_file",
    "summary",
]
