"""What `make table` measured, as one file, and the places that show it: rendered, so that no two differ.

A page shows it between two markers; the header of a preset in the lines of its time, its figures and their source.
"""

import datetime
import re
import statistics
from pathlib import Path

from benchmarks import machine
from generalist.atomic_files import write_atomically
from generalist.errors import BadInput
from generalist.records import Accuracy, Protocol, Record, ThreatEvaluation

ROOT = Path(__file__).parent.parent
FILE = ROOT / "benchmarks" / "measured" / "digits_table.json"
PAGES = ("README.md", "docs/methods.md")
BEGIN, END = "<!-- rendered by make table -->\n", "<!-- end of what make table rendered -->\n"


class Trained(Record):
    """The deployed learner of one training.

    Attributes:
        seed: of the training.
        natural: accuracy on clean images.
        headline: under the first threat.
        digest: SHA-256 (hex) of the weights.
        training_seconds: of all experts' epochs, whenever they ran; measuring and storing is not in it.
        evaluation_seconds: wall clock.
    """

    seed: int
    natural: Accuracy
    headline: ThreatEvaluation
    digest: str
    training_seconds: float
    evaluation_seconds: float


class Row(Record):
    """A preset's trainings, one a seed."""

    title: str
    preset: str
    trained: tuple[Trained, ...]

    def figures(self) -> list[str]:
        """Mean and standard deviation in percent: natural, PGD, AutoAttack."""
        columns = zip(
            *(
                (training.natural, training.headline.columns["pgd"], training.headline.columns["cascade"])
                for training in self.trained
            ),
            strict=True,
        )
        return [_spread([100 * accuracy.value for accuracy in column]) for column in columns]


class Table(Record):
    """One call of `make table`.

    Attributes:
        date: on which it ended.
        machine: see `benchmarks.machine.machine`.
        versions: see `benchmarks.machine.versions`.
        epochs: of each training.
        attacks: as the columns are called.
        protocol: what the robust accuracies mean.
        training_code: digest of the code that trained.
        rows: in the order of the table.
    """

    date: datetime.date
    machine: str
    versions: dict[str, str]
    epochs: int
    attacks: tuple[str, str]
    protocol: Protocol
    training_code: str
    rows: tuple[Row, ...]

    @property
    def seeds(self) -> int:
        """How many trainings a row has."""
        return len(self.rows[0].trained)

    @property
    def threat(self) -> str:
        """Such as `Linf 0.15`."""
        return self.protocol.threats[0].replace(":", " ").capitalize()

    def markdown(self) -> str:
        """Render the table with what it means above, and where it is from below."""
        trained = [training for row in self.rows for training in row.trained]
        minutes = sum(own.training_seconds + own.evaluation_seconds for own in trained) / 60
        meaning = (
            f"{self.threat}, {self.protocol.split} split, n = {self.protocol.n}, mean ± standard deviation over"
            f" {self.seeds} seeds, {self.epochs} epochs each:"
        )
        cells = [[row.title, *row.figures()] for row in self.rows]
        source = (
            f"(`make table`, {self.date}, {self.machine}, torch {self.versions['torch'].partition('+')[0]}:"
            f" {minutes:.0f} minutes of training and evaluation)"
        )
        return "\n\n".join((meaning, machine.table(["training", "natural", *self.attacks], cells), source))

    def header(self, row: Row) -> dict[str, str]:
        """Render the fields of a preset's header that tell what was measured."""
        training = statistics.mean(own.training_seconds for own in row.trained)
        evaluation = statistics.mean(own.evaluation_seconds for own in row.trained)
        figures = zip(("natural", *self.attacks), row.figures(), strict=True)
        return {
            "time": f"minutes: training took {training:.0f} s, its evaluation {evaluation:.0f} s"
            f" (`make table`; {self.machine})",
            "expected": ", ".join(f"{name} {figure}" for name, figure in figures),
            "source": f"`make table`, {self.date}: mean and standard deviation over {self.seeds} seeds on"
            f" {self.protocol.n} test images, {self.threat}",
        }


def read(path: Path = FILE) -> Table:
    """Read what is recorded.

    Raises:
        BadInput: the file is none of `make table`.
    """
    try:
        return Table.read(path)
    except (OSError, ValueError):
        raise BadInput(f"{path} is no record of `make table`: run it, or get the file from git") from None


def render(table: Table, root: Path = ROOT) -> dict[Path, str]:
    """Every place with what it shows of a table; nothing is written.

    Raises:
        BadInput: a page has no markers, or a header lacks a field.
    """
    pages = {root / name: _page(root / name, table) for name in PAGES}
    presets = sorted(root / "presets" / f"{row.preset}.yaml" for row in table.rows)  # others are of no row
    return pages | {path: _yaml(path, table) for path in (root / "params.yaml", *presets)}


def write(table: Table, root: Path = ROOT) -> list[Path]:
    """Bring all places up to date; returns those that changed.

    Raises:
        BadInput: see `render`; then none is changed. Or a place can't be written.
    """
    changed = [(path, text) for path, text in render(table, root).items() if path.read_text(encoding="utf-8") != text]
    for path, text in changed:
        write_atomically(path, text.encode())
    return [path for path, _ in changed]


def _page(path: Path, table: Table) -> str:
    found = re.fullmatch(f"(.*{BEGIN}).*?({END}.*)", path.read_text(encoding="utf-8"), re.DOTALL)
    if found is None:
        raise BadInput(f"{path} does not say where the table is: put {BEGIN.strip()} and {END.strip()} around it")
    return f"{found[1]}\n{table.markdown()}\n\n{found[2]}"


def _yaml(path: Path, table: Table) -> str:
    """Find a preset's file, or another configuration as it is, which `params.yaml` may be."""
    text = path.read_text(encoding="utf-8")
    used = re.search(r"^# command: +generalist config use (\S+) ", text, re.MULTILINE)
    for row in table.rows:
        for field, value in table.header(row).items() if used and used[1] == row.preset else ():
            found = re.search(rf"^# {field}: +(.*)$", text, re.MULTILINE)
            if found is None:
                raise BadInput(f"{path} has no line `# {field}:` in its header: write one")
            text = text[: found.start(1)] + value + text[found.end(1) :]
    return text


def _spread(values: list[float]) -> str:
    mean = f"{statistics.mean(values):.1f}"
    return f"{mean} ± {statistics.stdev(values):.1f}" if len(values) > 1 else mean
