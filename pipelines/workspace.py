"""Where things lie, who may write them, and which code is running."""

import hashlib
import os
import subprocess
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from generalist.errors import BadInput
from generalist.masking import masked_address
from pipelines import locks

_QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DVC_NO_ANALYTICS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",  # one bar for each small file
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # between our own lines
}


def quiet_telemetry() -> None:
    """Switch usage reports and chatter of all tools off, unless the user has decided otherwise; children inherit it."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)


@dataclass
class Workspace:
    """The folders of a project.

    `dvc exp run --temp` and `--queue` run in a copy of the project, and `DVC_ROOT` names the original: parameters
    are read and outputs written here, in the copy, but the store, the tracking database and Prefect's home are the
    original's, so that experiments share their work and appear side by side.

    Attributes:
        root: the project, absolute.
        here: where `params.yaml` is read and `outputs/` written: the project, or DVC's copy of it.
        params: the configuration.
        prepared: the prepared data that DVC versions.
        outputs: what the DVC stage writes.
        tuning: what searches and ablations put down, each in a folder of its own.
        comparisons: what comparisons put down, likewise.
        runs: where runs of the Prefect deployment write, each into a folder of its own.
        artifacts: what MLflow keeps as files where no server keeps them.
        work: work in progress and caches; safe to delete while nothing runs.
        store: states of experts, by their keys.
        data_cache: prepared data of other requests than `params.yaml`, by the digest of the request.
        staging: results in the making, a folder for each writer.
        prefect_home: Prefect's database and profile.
        locks: files that show which process does what.
    """

    root: Path
    here: Path

    def __post_init__(self) -> None:
        root, here, work = self.root, self.here, self.root / ".generalist"
        self.params, self.prepared, self.outputs = here / "params.yaml", here / "data" / "prepared", here / "outputs"
        self.tuning, self.runs, self.artifacts = here / "tuning", root / "runs", root / "mlruns"
        self.comparisons = here / "comparisons"
        self.work, self.store, self.data_cache = work, work / "store", work / "data"
        self.staging, self.prefect_home, self.locks = work / "staging", work / "prefect", work / "locks"

    @classmethod
    def find(cls, start: Path | None = None) -> Self:
        """Return the workspace around `start` (default: the current folder).

        It is the nearest folder upwards with a `dvc.yaml`, or `start` itself where there is none.
        """
        start = (start or Path.cwd()).resolve()
        project = _nearest_folder(start, "dvc.yaml") or start
        original = os.environ.get("DVC_ROOT")
        if not original:
            return cls(project, project)
        # The project may lie in a subfolder of DVC's repository, and does so in its copy, too.
        repository = _nearest_folder(project, ".dvc") or project
        return cls((Path(original) / project.relative_to(repository)).resolve(), project)

    @property
    def tracking_uri(self) -> str:
        """MLflow's address: `MLFLOW_TRACKING_URI`, or `mlflow.db` in the project.

        A relative SQLite path is meant from the project, wherever the command runs.

        Raises:
            BadInput: it names a folder (MLflow keeps no runs in folders any more), or a path that can't be an address.
        """
        given = os.environ.get("MLFLOW_TRACKING_URI", "").strip() or "sqlite:///mlflow.db"
        if "://" not in given or given.startswith("file:"):
            address = masked_address(f"//{given}").removeprefix("//")  # perhaps an address that lacks its beginning
            raise BadInput(
                f"MLFLOW_TRACKING_URI is '{address}', a folder, and MLflow keeps no runs in folders any more:"
                " use sqlite:///mlflow.db or a server's address, or unset it"
            )
        if not given.startswith("sqlite:///"):
            return given
        path = self.root / given.removeprefix("sqlite:///")
        if set("%?#") & set(str(path)):
            raise BadInput(f"MLflow can't address a database at {path}: use a path without the characters % ? #")
        return f"sqlite:///{path}"

    @property
    def tracking_database(self) -> Path | None:
        """The file of MLflow's SQLite database; None where a server keeps it."""
        path = self.tracking_uri.removeprefix("sqlite:///")
        return None if path == self.tracking_uri else Path(path)

    def lock(self, outputs: Path) -> AbstractContextManager[None]:
        """Be the one writer of a folder of outputs; a killed writer's lock is free at once.

        Raises:
            BadInput: another process is writing there.
        """
        return self.alone(self.lock_name(outputs), "training", f"is writing {outputs.resolve().name}/")

    def lock_name(self, outputs: Path) -> str:
        """Return the name of that lock, for other things that only the writer has."""
        return _name_of("outputs", outputs)

    def stage(self) -> AbstractContextManager[None]:
        """Be the only stage that DVC runs here, also where the DVC that ran it was killed.

        Raises:
            BadInput: another one is under way.
        """
        return self.alone(_name_of("stage", self.here), "stage of DVC's", "is under way")

    def alone(self, name: str, who: str, does: str) -> AbstractContextManager[None]:
        """Be the only process of this project that holds a lock; `pipelines.locks.alone` has the details.

        Raises:
            BadInput: another process holds it: which, and for how long.
        """
        return locks.alone(self.locks, name, who, does)

    def one_at_a_time(self, what: str) -> AbstractContextManager[None]:
        """Wait until no other process or thread does `what` in this project, then do it."""
        return locks.one_at_a_time(self.locks, what)


@dataclass(frozen=True)
class CodeVersion:
    """Which code is running.

    Attributes:
        commit: of git; None where the code is not under version control, as when installed from a wheel.
        dirty: whether the code differs from the commit (not parameters or outputs); None without a commit.
    """

    commit: str | None
    dirty: bool | None


def code_version() -> CodeVersion:
    """Return the version of these packages."""
    path = Path(__file__)
    packages = [path.parent.name, "generalist"]
    # An installed package may lie inside a user's repository without being part of it.
    if _git(path.parent.parent, "ls-files", "--error-unmatch", str(path)) is None:
        return CodeVersion(None, None)
    commit = _git(path.parent.parent, "rev-parse", "HEAD")
    if commit is None:
        return CodeVersion(None, None)
    changes = _git(path.parent.parent, "status", "--porcelain", "--", *packages)
    return CodeVersion(commit, changes != "")


def _git(folder: Path, *arguments: str) -> str | None:
    """Return what git prints, or None where it can't answer."""
    # A hook's environment names the repository that is being committed to, which may be another one.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(  # noqa: S603  arguments of ours only
            ["git", "-C", str(folder), *arguments],  # noqa: S607  the user's git, wherever it is
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _name_of(kind: str, folder: Path) -> str:
    """Return a lock's name for something in one folder."""
    return f"{kind}-{hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:12]}"


def _nearest_folder(start: Path, name: str) -> Path | None:
    """Return the nearest folder upwards from `start` in which `name` exists."""
    return next((folder for folder in (start, *start.parents) if (folder / name).exists()), None)
