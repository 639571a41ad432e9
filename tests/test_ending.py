"""Ctrl-C and SIGTERM end an evaluation within seconds, whichever door it goes through."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from generalist.config import to_yaml
from tests.processes import until
from tests.services import environment, with_databases
from tests.training_factory import small

pytestmark = pytest.mark.long
DOORS = {
    "the command": "from pipelines.cli import main; main()",
    "a deployment's run": "from pipelines.flows import generalist_flow; generalist_flow(outputs='runs/one')",
}
WITHIN = 12.0  # seconds, beside other tests; eight are asked, four to five were measured


@pytest.mark.parametrize(("door", "number"), [("the command", signal.SIGINT), ("a deployment's run", signal.SIGTERM)])
def test_an_evaluation_ends_within_seconds(
    tmp_path: Path, pytestconfig: pytest.Config, door: str, number: signal.Signals
) -> None:
    """Its attacks run in threads, for which Prefect would wait. SIGTERM for `generalist run`: see test_ends."""
    project = with_databases(tmp_path, pytestconfig)
    (project / "dvc.yaml").touch()
    written = small("training.epochs=3", "evaluation.attack=standard", "evaluation.images=all", "model.width=16")
    (project / "params.yaml").write_text(to_yaml(written), encoding="utf-8")
    said = tmp_path / "said"
    with said.open("wb") as file:
        child = subprocess.Popen(
            [sys.executable, "-c", DOORS[door], "train"],
            cwd=project,
            env=environment(),
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    try:
        until(lambda: child.poll() is not None or "evaluating" in said.read_text(encoding="utf-8"))
        time.sleep(2)  # somewhere in an attack
        began = time.monotonic()
        child.send_signal(number)
        child.wait(timeout=200)
        assert time.monotonic() - began < WITHIN
        assert child.returncode != 0, said.read_text(encoding="utf-8")
    finally:
        child.kill()
        with suppress(ProcessLookupError):  # the server that Prefect started for a flow that had none
            os.killpg(child.pid, signal.SIGKILL)
