"""What comes of a whole run that is ended at random moments: seconds, leftovers, states in Prefect and MLflow, bits.

python -m tests.ends [--seed N] [--count N] [--json FILE]
"""

import argparse
import json
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

from generalist.atomic_files import write_atomically
from generalist.config import load, to_yaml
from generalist.export import graph_digest
from tests.services import environment, processes_of

SIGNALS = {"SIGTERM": signal.SIGTERM, "SIGINT": signal.SIGINT, "SIGKILL": signal.SIGKILL}
COMMAND = [sys.executable, "-c", "from pipelines.cli import main; main()"]
SMALL = (
    "training.epochs=6",
    "mixing.warm_up=2",
    "mixing.interval=2",
    "model.width=4",
    "evaluation.images=100",
    "evaluation.attack=standard",
)
GIVE_UP = 120.0
"""Seconds for an end, and for nothing of it to be left."""
UNDER_WAY = ("PENDING", "RUNNING", "CANCELLING")
PASSING = (".*.part*", "*.half", "*.damaged", "*.pid")
"""Names of files that only a writer at work has."""


@dataclass(frozen=True)
class End:
    """How a run ended.

    Attributes:
        sent: the signal.
        after: seconds from the start to the signal.
        seconds: from the signal until no process of the project was left.
        code: exit code; negative for a signal.
        prefect, mlflow: states of the runs then, the ended one last.
        next_prefect, next_mlflow: states of the same runs once the same command has gone on and ended.
        left: files and folders of work in progress that remain then.
        same_bits: whether weights, verdicts and the exported graph are those of a run that nobody ended.
    """

    sent: str
    after: float
    seconds: float
    code: int
    prefect: tuple[str, ...]
    mlflow: tuple[str, ...]
    next_prefect: tuple[str, ...]
    next_mlflow: tuple[str, ...]
    left: tuple[str, ...]
    same_bits: bool

    @property
    def is_right(self) -> bool:
        """Whether nothing is left, nothing seems to run once the command has gone on, and the bits are the same."""
        return self.same_bits and not self.left and _over(*self.next_prefect, *self.next_mlflow)

    @property
    def was_told(self) -> bool:
        """Whether nothing seemed to run at once; who was killed had no time to tell."""
        return self.sent == "SIGKILL" or _over(*self.prefect, *self.mlflow)


def _over(*states: str) -> bool:
    return not {*states} & {*UNDER_WAY, "SCHEDULED"}


class Project:
    """A small project on digits, begun by `generalist init`."""

    def __init__(self, folder: Path, *overrides: str) -> None:
        self.folder = folder
        self._environment = {name: value for name, value in environment().items() if name != "PREFECT_HOME"}
        self._ask("init", str(folder), at=folder.parent)
        subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
        configured = load(preset="digits", overrides=[*SMALL, *overrides])
        (folder / "params.yaml").write_text(to_yaml(configured), encoding="utf-8")

    def _ask(self, *words: str, at: Path | None = None) -> None:
        done = subprocess.run(
            [*COMMAND, *words],
            cwd=at or self.folder,
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def start(self) -> subprocess.Popen[bytes]:
        """Begin `generalist run`."""
        with (self.folder.parent / "said").open("ab") as said:
            return subprocess.Popen([*COMMAND, "run"], cwd=self.folder, env=self._environment, stdout=said, stderr=said)

    def finish(self) -> float:
        """Do `generalist run` to its end; its seconds."""
        began = time.perf_counter()
        self._ask("run")
        return time.perf_counter() - began

    def forget(self) -> None:
        """Remove what was trained, as if nothing had ever been."""
        for name in ("store", "data", "staging"):
            shutil.rmtree(self.folder / ".generalist" / name, ignore_errors=True)
        for name in ("outputs", "data/prepared", ".dvc/cache", ".dvc/tmp"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        (self.folder / "dvc.lock").unlink(missing_ok=True)

    def bits(self) -> tuple[bytes, bytes, str]:
        """Return what has to be the same: weights, verdicts, and the graph without its origin."""
        outputs = self.folder / "outputs"
        whole = (outputs / name for name in ("global.safetensors", "verdicts.npz"))
        weights, verdicts = (path.read_bytes() for path in whole)
        return weights, verdicts, graph_digest(outputs / "model.onnx")

    def states(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Of Prefect's flow runs and their tasks, and of MLflow's runs."""
        prefect = self.folder / ".generalist" / "prefect" / "prefect.db"
        flows = _column(prefect, "SELECT state_type FROM flow_run ORDER BY start_time")
        tasks = {*_column(prefect, "SELECT state_type FROM task_run")} & {*UNDER_WAY}
        return (*flows, *sorted(tasks)), _column(
            self.folder / "mlflow.db", "SELECT status FROM runs ORDER BY start_time"
        )

    def left(self) -> tuple[str, ...]:
        """Return processes, and files of work in progress."""
        files = {path for name in PASSING for path in self.folder.rglob(name)}
        staged = [*(self.folder / ".generalist" / "staging").glob("*")]
        return (*processes_of(self.folder), *(str(path.relative_to(self.folder)) for path in sorted({*files, *staged})))


def ended(project: Project, expected: tuple[bytes, bytes, str], sent: str, after: float) -> End:
    """End a run by a signal after some seconds, then let the same command go on to its end."""
    project.forget()
    runs, logged = (len(states) for states in project.states())
    process = project.start()
    try:
        time.sleep(after)
        process.send_signal(SIGNALS[sent])
        since = time.perf_counter()
        code = process.wait(GIVE_UP)
        while processes_of(project.folder):
            assert time.perf_counter() < since + GIVE_UP, processes_of(project.folder)
            time.sleep(0.05)
        seconds = time.perf_counter() - since
    finally:
        process.kill()
    prefect, mlflow = project.states()
    project.finish()
    next_prefect, next_mlflow = project.states()
    return End(
        sent=sent,
        after=round(after, 1),
        seconds=round(seconds, 1),
        code=code,
        prefect=prefect[runs:],
        mlflow=mlflow[logged:],
        next_prefect=next_prefect[runs:],
        next_mlflow=next_mlflow[logged:],
        left=project.left(),
        same_bits=project.bits() == expected,
    )


def _column(database: Path, query: str) -> tuple[str, ...]:
    with closing(sqlite3.connect(database, timeout=30)) as connection:
        return tuple(value for (value,) in connection.execute(query))


def main() -> int:
    """End runs at so many random moments, by each signal in turn, and print what came of each."""
    parser = argparse.ArgumentParser(prog="python -m tests.ends", description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=20, help="how many runs are ended")
    parser.add_argument("--json", type=Path, help="where all of it goes, too")
    asked = parser.parse_args()
    moments, signals, found = random.Random(asked.seed), list(SIGNALS), []
    with tempfile.TemporaryDirectory() as folder:
        project = Project(Path(folder) / "project")
        project.finish()  # makes the databases, which takes longer than any later run
        project.forget()
        whole, expected = project.finish(), project.bits()
        print(f"a whole run takes {whole:.0f} s")
        for number in range(asked.count):
            end = ended(project, expected, signals[number % len(signals)], moments.uniform(0, whole))
            found.append(end)
            print(f"{('ok   ' if end.was_told else 'later') if end.is_right else 'WRONG'} {end}", flush=True)
    if asked.json:
        write_atomically(asked.json, (json.dumps([asdict(end) for end in found], indent=1) + "\n").encode())
    wrong = sum(not end.is_right for end in found)
    longest = {sent: max((end.seconds for end in found if end.sent == sent), default=0.0) for sent in SIGNALS}
    later = sum(not end.was_told for end in found)
    print(
        f"ended: {len(found)}, wrong: {wrong}, told by the next start alone: {later}; longest end in seconds: {longest}"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
