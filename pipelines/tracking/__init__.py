"""MLflow remembers: one run for each training, with parameters, metrics by epoch, origin, model and report."""

from pipelines.tracking.database import connect, experiment_id, migrate
from pipelines.tracking.outputs import Outputs, Verdicts
from pipelines.tracking.publishing import publish
from pipelines.tracking.tracker import Tracker, start

__all__ = ["Outputs", "Tracker", "Verdicts", "connect", "experiment_id", "migrate", "publish", "start"]
