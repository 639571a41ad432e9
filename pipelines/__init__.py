"""Orchestration: where things lie, what runs when, what is remembered. The mathematics is in `generalist`."""

from pipelines.workspace import quiet_telemetry

# Here, because MLflow and Prefect read the variables when they are imported, and every door imports this first.
quiet_telemetry()
