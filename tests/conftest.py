"""What all tests share: telemetry off, services out of reach, one thread, checked shapes; and projects with MLflow."""

import gc
import os
import re
import shutil
import sysconfig
import tempfile
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from generalist.data import Dataset
    from generalist.training import Fact, Outcome
    from pipelines.results import Results
    from pipelines.workspace import Workspace
    from tests.registry_factory import Registry

# Looking for garbage among what a hundred modules and thousands of tests make takes a third of collecting them.
gc.disable()

# Before any import that reads them; the programs that tests start inherit them.
_PREFECT_HOME = tempfile.TemporaryDirectory(prefix="generalist-tests-")
os.environ |= {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DVC_NO_ANALYTICS": "1",
    "PREFECT_HOME": _PREFECT_HOME.name,
}
_ADDRESSES = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MLFLOW_RUN_ID", "PREFECT_API_URL", "PREFECT_PROFILE")
for _name in (*_ADDRESSES, "PREFECT_API_AUTH_STRING", "PREFECT_SERVER_API_AUTH_STRING"):
    os.environ.pop(_name, None)

import hypothesis  # noqa: E402  after the environment is set
import jaxtyping  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
from jaxtyping import install_import_hook  # noqa: E402

import tests.shapes  # noqa: E402, F401  which the hook below means

ROOT = Path(__file__).parent.parent

# All annotated functions of the library are checked while tests run, with shapes and dtypes.
install_import_hook("generalist", "tests.shapes.checked")
WITHOUT_CHECKS = re.compile(
    r"""test_(
    aa_reference | arithmetic | attack_mutants | attributes::test_on_a_linear | cascade::test_the_standard
    | cascade_ | champion | cli_attack | cli_journey | code_digest | conditions | cuda_graphs | dummy_export
    | ensemble | evaluation | every_preset | exact_ | faults | gating | golden | gradient_check::test_an_adv
    | heads::test_objectives | heads::test_the_ | kills | library_edge | monotone | mutual
    | perturbations::test_each | registry | report | reuse | sequence | sharing | slimmable::test_a_training
    | store_ | study_tracking | task_runners | training | tuning_ | union_evaluation
    | union_objective::test_a_training | unlabelled | versions | width_files
    )""",
    re.VERBOSE,
)
"""Files of tests, or beginnings of `file::test`, that run whole cascades, trainings and exports without those checks:
every step of them is checked in `test_cascade.py`, `test_engine.py`, `test_objectives.py`, `test_export.py` and the
contract tests."""

hypothesis.settings.register_profile(
    "generalist",
    deadline=None,  # a busy machine is slow now and then; that is no failure
    derandomize=True,  # the same examples each time: a red test stays red
    database=None,
    max_examples=25,
)
hypothesis.settings.load_profile("generalist")


LONGEST = ("test_pipeline", "test_serving", "test_tuning_kills", "test_ends", "test_killed_servers", "test_gpu_short")
"""Files that take a minute or two: begun first, so that no worker has one left when the others are done."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first."""
    items.sort(key=lambda item: item.path.stem not in LONGEST)


def pytest_collection_finish() -> None:
    """Look for garbage from now on, though not among what is there."""
    gc.collect()
    gc.freeze()
    gc.enable()


def pytest_unconfigure() -> None:
    """Remove Prefect's home."""
    _PREFECT_HOME.cleanup()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Whole cascades and trainings take many steps: shapes are checked where the steps are tested one by one."""
    place = f"{item.path.stem}::{item.name}"
    jaxtyping.config.update("jaxtyping_disable", WITHOUT_CHECKS.match(place) is not None)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """All members with few steps, under the name of `plus`."""
    from dataclasses import replace

    from generalist.attacks import VERSIONS
    from generalist.attacks.members import member_names

    monkeypatch.setitem(VERSIONS, "plus", replace(VERSIONS["plus"], restarts=2, targets=3, steps=10, fab_steps=6))
    return {"version": "plus", "attacks": member_names(), "square_queries": 30}


@pytest.fixture
def short_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    """`standard` and `quick` with few steps, few images at a time; `standard` without Square, which needs no gradients."""
    from dataclasses import replace

    from generalist.attacks import VERSIONS, fixed_batches, model_checks

    monkeypatch.setattr(model_checks, "_HUGE_STEPS", 2)
    monkeypatch.setattr(fixed_batches, "_TILE", 24)
    few = replace(VERSIONS["standard"], members=("apgd-ce", "apgd-t", "fab-t"), targets=3, steps=7, fab_steps=4)
    monkeypatch.setitem(VERSIONS, "standard", few)
    monkeypatch.setitem(VERSIONS, "quick", replace(VERSIONS["quick"], targets=2, steps=7, fab_steps=4))


@pytest.fixture(scope="session", autouse=True)
def _disks_are_not_waited_for() -> Iterator[None]:
    """No test cuts the power; that files are flushed, and when, is tested where `os.fsync` is watched."""
    flush = os.fsync
    os.fsync = lambda _: None
    yield
    os.fsync = flush


@pytest.fixture(scope="module", autouse=True)
def _a_module_s_environment_is_put_back() -> Iterator[None]:
    """What a module's fixtures set is for its own tests: one server of theirs would make others' Prefect quiet."""
    yield from _environment_put_back()


@pytest.fixture(autouse=True)
def _environment_is_put_back() -> Iterator[None]:
    """Commands that run in this process set variables for the programs that they start; other tests start others."""
    yield from _environment_put_back()


def _environment_put_back() -> Iterator[None]:
    before = dict(os.environ)
    yield
    for name in {*os.environ} - {*before}:
        del os.environ[name]
    os.environ.update(before)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """One intra-op thread before and after each test: the number changes the bits of results."""
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def root() -> Path:
    """The project's root."""
    return ROOT


@pytest.fixture
def fresh_environment(tmp_path: Path) -> Path:
    """An environment without this project in which the dependencies that run these tests can be imported.

    Installing two gigabytes anew would take minutes. Here `bin/pip` finds every dependency installed
    already, and so still checks that what is installed is what it is asked for.
    """
    place = tmp_path / "environment"
    venv.create(place, symlinks=True)
    site = sysconfig.get_path("purelib", "venv", {"base": str(place), "platbase": str(place)})
    # Comes after the environment's own packages on sys.path, and the .pth files there (of this project, too) go unread.
    Path(site, "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    pip = place / "bin" / "pip"
    pip.write_text(
        f"#!{place}/bin/python\nfrom pip._internal.cli.main import main\nraise SystemExit(main())\n", "utf-8"
    )
    pip.chmod(0o755)
    return place


# What the tests of MLflow and of the registry share. MLflow takes seconds to import, and other tests need none of it.


@pytest.fixture
def workspace(tmp_path: Path, pytestconfig: pytest.Config) -> "Workspace":
    """A project with an empty MLflow database."""
    from tests import tracking_factory

    return tracking_factory.workspace(tmp_path, pytestconfig)


@pytest.fixture
def client(workspace: "Workspace") -> "MlflowClient":
    """A client of its database."""
    from pipelines.tracking import connect

    return connect(workspace)


@pytest.fixture
def results(tmp_path: Path) -> "Results":
    """A finished training."""
    from tests import tracking_factory

    return tracking_factory.Model().write(tmp_path / "outputs")


@pytest.fixture(scope="module")
def shared_workspace(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> "Workspace":
    """A project with an empty MLflow database for the tests of one module."""
    from tests import tracking_factory

    return tracking_factory.workspace(tmp_path_factory.mktemp("project"), pytestconfig)


@pytest.fixture
def tried_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is registered is tried in this process: made-up models do it no harm, and another takes a second to start."""
    from tests import onnx_models

    monkeypatch.setattr("generalist.export.runtime.probe_model", onnx_models.tried_here)


@pytest.fixture
def registry(
    shared_workspace: "Workspace", tmp_path: Path, request: pytest.FixtureRequest, tried_here: None
) -> "Registry":
    """The registered model of a test."""
    from tests.registry_factory import Registry

    return Registry(shared_workspace, re.sub(r"[^A-Za-z0-9_-]", "_", request.node.name)[:100], tmp_path)


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of prepared digits, which nobody writes to."""
    from tests.training_factory import digits

    folder = tmp_path_factory.mktemp("digits") / "data"
    digits(folder)
    return folder


@pytest.fixture(scope="session")
def dataset(prepared: Path) -> "Dataset":
    """Prepared digits."""
    from generalist.data import load

    return load(prepared)


@pytest.fixture(scope="session")
def few(dataset: "Dataset") -> "Dataset":
    """Images for three steps of 32 in each epoch."""
    from dataclasses import replace

    from tests.training_factory import first

    return replace(dataset, train=first(dataset.train, 96), validation=first(dataset.validation, 16))


@pytest.fixture(scope="session")
def whole(dataset: "Dataset", tmp_path_factory: pytest.TempPathFactory) -> "tuple[Path, list[Fact], Outcome]":
    """The small training, finished in one go, once for all tests: its store, which nobody writes to, facts, outcome."""
    from tests.training_factory import finish, small

    store = tmp_path_factory.mktemp("whole") / "store"
    return store, *finish(small(), dataset, store)


@pytest.fixture(scope="session")
def outcome(whole: "tuple[Path, list[Fact], Outcome]") -> "Outcome":
    """The outcome of the small training."""
    return whole[2]


@pytest.fixture
def finished(whole: "tuple[Path, list[Fact], Outcome]", tmp_path: Path) -> Path:
    """A store of the test's own that holds the finished small training."""
    return shutil.copytree(whole[0], tmp_path / "finished")
