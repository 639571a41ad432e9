"""`generalist serve`."""

from typing import Annotated

import typer

from pipelines.cli.shell import say

Port = Annotated[int, typer.Option(min=1, max=65535, metavar="PORT")]


def serve(prefect_port: Port = 4200, mlflow_port: Port = 5000) -> None:
    """Serve Prefect, its deployments and MLflow until Ctrl-C.

    Prefect's pages, what runs `prefect deployment run generalist/train`, and MLflow's pages; on this machine only.
    """
    from pipelines import serving
    from pipelines.workspace import Workspace

    serving.serve(Workspace.find(), prefect_port=prefect_port, mlflow_port=mlflow_port, say=say)
