"""Searches in PostgreSQL, where machines share them."""

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from pipelines.tuning.storage import close, open_storage, shown
from pipelines.tuning.study import Search, create_search
from pipelines.tuning.worker import work
from pipelines.workspace import Workspace
from tests import postgres, tuning_factory
from tests.processes import another_process, forking, until
from tests.tuning_factory import small

pytestmark = pytest.mark.long

SPACE = tuning_factory.SPACE | {"mixing.warm_up": {"choices": [0, 1]}}
SHORT = ("training.epochs=2", "mixing.warm_up=1", f"tuning.space={json.dumps(SPACE)}")
TRIALS, WORKERS = 24, 4


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A database."""
    with postgres.cluster() as own:
        yield own


@pytest.fixture(autouse=True)
def project(tmp_path: Path, pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A project with a small search, which is the current folder."""
    return tuning_factory.project(tmp_path, pytestconfig, monkeypatch)


@forking
def test_four_processes_share_the_trials(project: Workspace, address: str) -> None:
    """None is lost, none counted twice, and they end; one of the processes is killed on the way."""

    def search() -> Search:
        return create_search(small(*SHORT), open_storage(address), project.locks, name="shared")

    found = search()
    found.fill([{}] * TRIALS)
    with ExitStack() as stack:
        pids = [stack.enter_context(another_process(lambda: work(search(), project))) for _ in range(WORKERS)]
        time.sleep(3)
        os.kill(pids[0], signal.SIGKILL)
        until(lambda: not found.left())
    records = found.records()
    assert [record.number for record in records] == list(range(TRIALS))
    assert {own.state for own in records} <= {"complete", "pruned"}
    assert len(found.study.get_trials(deepcopy=False)) == TRIALS
    close(found.storage)


def test_the_password_stays_out_of_what_is_shown(address: str) -> None:
    """The rest of the address is told."""
    assert shown(address.replace("tester@", "tester:secret@")) == address.replace("tester@", "…@")
