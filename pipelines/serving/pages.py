"""Where everything is, told once it is there."""

import shlex
import sys
from pathlib import Path


def announcement(*, prefect: str, mlflow: str, logs: Path, string: Path) -> str:
    """Return lines for people: the pages, and what to type in a second shell.

    Args:
        prefect: address of Prefect's pages, whose API is below it.
        mlflow: address of the list of runs.
        logs: folder of the logs.
        string: the file with what Prefect's server asks for.
    """
    programs = shlex.quote(str(Path(sys.executable).parent))
    read = f"cat {shlex.quote(str(string))}"
    return f"""
Prefect   {prefect} (asks for a password: {read})
MLflow    {mlflow}
logs      {logs}

The deployments generalist/train and generalist-tune/search are served. In a second shell:
  export PREFECT_API_URL={prefect}/api PREFECT_API_AUTH_STRING="$({read})" PATH={programs}:$PATH
  prefect deployment run generalist/train --watch
  prefect deployment run generalist/train --watch --param preset=digits --param 'overrides=["mixing.interval=3"]'
  prefect deployment run generalist-tune/search --watch --param workers=2
Each training writes to runs/ID, each search to tuning/NAME. Ctrl-C ends all of this, and a run that is under way."""
