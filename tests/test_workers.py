"""Processes that work on a search."""

from pathlib import Path

import pytest

from pipelines.tuning.worker_pool import LocalWorker
from pipelines.workspace import Workspace
from tests.processes import until
from tests.services import ROOT


@pytest.mark.long
def test_a_worker_that_was_stopped_has_not_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped on the way it ended as it was to; one that ends by itself tells its own code."""
    monkeypatch.chdir(ROOT)
    address = f"sqlite:///{tmp_path}/none.db"
    stopped, failed = (LocalWorker(Workspace(tmp_path, tmp_path), "nothing", address, number) for number in (0, 1))
    stopped.end()
    assert stopped.poll() == 0
    until(lambda: failed.poll() is not None)
    assert failed.poll() not in (None, 0)
    failed.end()
    assert failed.poll() != 0
