"""Wrong input of searches, and what a journal may hold."""

from pathlib import Path

import pytest

from generalist.errors import BadInput
from pipelines.tuning.run_search import files_of
from pipelines.tuning.storage import address_of, open_storage
from pipelines.tuning.study import create_search
from pipelines.tuning.worker import work
from pipelines.workspace import Workspace
from tests import tuning_factory
from tests.command_line import refused
from tests.tuning_factory import again, search, small


@pytest.fixture(autouse=True)
def project(tmp_path: Path, pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A project with a small search, which is the current folder."""
    return tuning_factory.project(tmp_path, pytestconfig, monkeypatch)


def test_wrong_input_gets_one_sentence_before_any_work(project: Workspace) -> None:
    """Spaces, names, storages, and what does not go together."""
    assert "did you mean 'warm_up'?" in refused("tune", "--set", "tuning.space={mixing.warmup: {low: 1, high: 2}}")
    assert "--join takes the search's --name" in refused("tune", "--join")
    assert "there is no search 'x' here; there are: none yet" in refused("tune", "--join", "--name", "x")
    assert "is no address of a database" in refused("tune", "--storage", "nonsense://x")
    assert "there is no ablation 'decai'; did you mean 'decay'?" in refused("ablate", "decai")
    (project.root / "mine.yaml").write_text("space: {}\n", encoding="utf-8")
    assert "needs the keys preset and space" in refused("ablate", "mine.yaml")
    assert not (project.work / "store").exists() and not (project.root / "tuning").exists()


def test_a_password_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a database doesn't answer, its address is, without it."""
    monkeypatch.setenv("GENERALIST_TUNING", "postgresql://user:secret@127.0.0.1:1/none")
    sentence = refused("tune", "--trials", "1")
    assert "postgresql://…@127.0.0.1:1/none" in sentence
    assert "secret" not in sentence


def test_a_search_has_one_leader(project: Workspace) -> None:
    """Two would count its time twice; more workers are welcome."""
    found = search(project, trials=0)
    with project.lock(files_of(project, found).folder):
        assert f"is writing {found.name}/" in refused("tune")


def test_a_name_means_one_search(project: Workspace) -> None:
    """Another space under it is refused; more trials are not."""
    search(project, trials=0)
    create_search(small(), open_storage(address_of(project, None)), project.locks, name="mine")
    create_search(small("tuning.trials=9"), open_storage(address_of(project, None)), project.locks, name="mine")
    changed = ("tuning.seed=4", "mixing.decay=0.3", "tuning.space.mixing.decay={choices: [0.3]}")
    with pytest.raises(BadInput) as refusal:
        create_search(small(*changed), open_storage(address_of(project, None)), project.locks, name="mine")
    told = "was begun with another mixing.decay, tuning.seed, tuning.space.mixing.decay.choices: set that back"
    assert f"the search 'mine' {told}" in str(refusal.value)


@pytest.mark.long
def test_a_diverging_trial_fails_with_its_sentence_and_the_search_goes_on(project: Workspace) -> None:
    """It is no reason to stop."""
    space = (
        "tuning.space={experts.robust.optimizer: {choices: {good: {name: sgd, lr: 0.1}, bad: {name: sgd, lr: 1e6}}}}"
    )
    found = search(project, space, "tuning.seed=1", "training.batch_size=32", trials=4)
    work(found, project)
    failed = [record for record in found.records() if record.state == "failed"]
    assert failed and all(own.reason and "expert robust diverged" in own.reason for own in failed)
    assert any(own.state == "complete" for own in found.records())


@pytest.mark.long
def test_what_is_no_trial_s_fault_fails_no_trial(project: Workspace) -> None:
    """A store that can't be written stops the worker with its sentence; mended, the search goes on with that trial."""
    found = search(project, trials=2)
    project.store.parent.mkdir(parents=True, exist_ok=True)
    project.store.write_text("in the way", encoding="utf-8")
    with pytest.raises(BadInput):
        work(found, project)
    assert {record.state for record in found.records()} == {"running", "waiting"}
    project.store.unlink()
    work(found, project)
    assert {own.state for own in found.records()} <= {"complete", "pruned"}


def test_half_a_line_in_the_journal_is_dropped(project: Workspace) -> None:
    """What a killed writer left; without that, the next line would be glued to it, and nobody could read on."""
    found = search(project, trials=2)
    with Path(address_of(project, None)).open("ab") as journal:
        journal.write(b'{"op_code": 4, "wor')
    assert len(again(found, project).records()) == 2
    again(found, project).fill([{}] * 3)
    assert len(again(found, project).records()) == len(found.records()) == 3


def test_a_file_that_is_no_journal_is_refused(project: Workspace) -> None:
    """Instead of being written to."""
    path = project.root / "notes.txt"
    path.write_text("not a journal\nat all\n", encoding="utf-8")
    assert "is no journal of Optuna" in refused("tune", "--storage", "notes.txt")
    assert path.read_text(encoding="utf-8") == "not a journal\nat all\n"
