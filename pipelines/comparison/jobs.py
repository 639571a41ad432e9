"""The trainings of a comparison: planned once, each with a file of its own for what it came to."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from generalist.atomic_files import write_atomically
from generalist.code_digest import plugins_of, training_code
from generalist.comparison import ComparedTraining, Comparison, Published
from generalist.config import Config, check, digest, params_digest, with_overrides
from generalist.data import Dataset
from generalist.errors import BadInput
from generalist.evaluation import protocol
from generalist.records import Record
from generalist.training import cost
from pipelines import steps
from pipelines.comparison.budget import length, overrides
from pipelines.comparison.spec import Budget, ComparisonSpec, Line, configurations
from pipelines.workspace import Workspace


class Job(Record):
    """One training of a comparison.

    Attributes:
        key: SHA-256 (hex), the beginning of it, of parameters, protocol and code: what is there by it counts.
        title, curve, seed: see `ComparedTraining`.
        command: that trains it alone.
        passes: of the network.
        config: the whole configuration, in plain values.
    """

    key: str
    title: str
    curve: str | None
    seed: int
    command: str
    passes: float
    config: Mapping[str, Any]

    def configuration(self) -> Config:
        """Return its configuration."""
        return check(self.config)


class Plan(Record):
    """What a comparison has to do, as it was when it began.

    Attributes:
        asked: SHA-256 (hex) of what was asked for.
        reference, budget, published: see `Comparison`.
        jobs: in the order of rows, then seeds.
    """

    asked: str
    reference: str
    budget: str | None
    published: tuple[Published, ...] = ()
    jobs: tuple[Job, ...] = Field(min_length=1)


class Folder:
    """Where a comparison lies.

    Attributes:
        path: the folder.
        plan: what it has to do.
        page, table, record: what it came to.
        logs: what workers say.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.plan = path, path / "plan.json"
        self.page, self.table, self.record = path / "frontier.html", path / "frontier.csv", path / "frontier.json"
        self.logs = path / "logs"

    def training(self, job: Job) -> Path:
        """Return the file of what a training came to."""
        return self.path / "trainings" / f"{job.key}.json"

    @property
    def files(self) -> list[Path]:
        """What a comparison writes for people and other programs."""
        return [self.page, self.table, self.record]

    def comparison(self, name: str, plan: Plan, command: str) -> Comparison:
        """Return what there is of a comparison."""
        there = [job for job in plan.jobs if self.training(job).is_file()]
        return Comparison(
            name=name,
            command=command,
            reference=plan.reference,
            budget=plan.budget,
            trainings=tuple(self._read(job) for job in there),
            published=plan.published,
            missing=len(plan.jobs) - len(there),
        )

    def _read(self, job: Job) -> ComparedTraining:
        """Return what a training came to: two rows may be the same training, and a curve's row is one of its own."""
        told = {"title": job.title, "curve": job.curve, "command": job.command}
        try:
            return ComparedTraining.read(self.training(job)).model_copy(update=told)
        except (OSError, ValueError):
            raise BadInput(f"{self.training(job)} can't be read: delete it, and it is measured again") from None


def planned(folder: Folder, spec: ComparisonSpec, workspace: Workspace) -> Plan:
    """Return the plan of a comparison; where the same was asked for before, with the lengths and passes of then.

    Keys are always those of the code as it is now, so that what older code measured is measured again.

    Raises:
        BadInput: a preset or an override is wrong, the folder is another comparison's, or test images differ.
    """
    asked = digest(spec.model_dump(mode="json"))
    before = _before(folder, asked)
    plan = _made(spec, asked, workspace, {job.title: job for job in before.jobs} if before else {})
    if plan != before:
        folder.path.mkdir(parents=True, exist_ok=True)
        write_atomically(folder.plan, plan.model_dump_json(indent=1).encode())
    return plan


def _before(folder: Folder, asked: str) -> Plan | None:
    if not folder.plan.exists():
        return None
    try:
        plan = Plan.read(folder.plan)
    except (OSError, ValueError):
        raise BadInput(f"{folder.plan} is no plan of a comparison: move {folder.path} away") from None
    if plan.asked != asked:
        raise BadInput(f"{folder.path} holds another comparison: give this one another --name, or delete that folder")
    return plan


def _made(spec: ComparisonSpec, asked: str, workspace: Workspace, known: Mapping[str, Job]) -> Plan:
    jobs: list[Job] = []
    budget = None if spec.budget is None else Budget.read(spec.budget)
    tested: dict[str, str] = {}
    for line, given in configurations(spec):
        dataset = steps.dataset(given, workspace)
        tested.setdefault(dataset.test_digest, line.title)
        if len(tested) > 1:
            one, other = tested.values()
            raise BadInput(f"{one} and {other} are tested on other images: compare trainings on the same data")
        jobs += _jobs(line, given, dataset, spec.seeds, budget, known.get(line.title))
    return Plan(
        asked=asked,
        reference=spec.reference or next(iter(spec.rows)),
        budget=None if budget is None else str(budget),
        published=spec.published,
        jobs=tuple(jobs),
    )


def _jobs(
    line: Line, given: Config, dataset: Dataset, seeds: int, budget: Budget | None, known: Job | None
) -> list[Job]:
    if known is not None:
        epochs = known.configuration().training.epochs
    else:
        epochs = given.training.epochs if budget is None else length(given, dataset, budget)
    lengthened = overrides(given, epochs)
    config = with_overrides(given, lengthened)
    passes = cost.passes(config, dataset) if known is None else known.passes
    plugins = plugins_of(config.model).union(*(plugins_of(expert) for expert in config.experts.values()))
    code, found = training_code(plugins), []
    for seed in range(seeds):
        own = config.model_copy(update={"seed": seed})
        found.append(
            Job(
                key=digest([params_digest(own), protocol(own, dataset).digest(), code])[:32],
                title=line.title,
                curve=line.curve,
                seed=seed,
                command=_command(line, [*line.overrides, f"seed={seed}", *lengthened]),
                passes=passes,
                config=own.model_dump(mode="json"),
            )
        )
    return found


def _command(line: Line, changes: Sequence[str]) -> str:
    """Return the command that trains a row alone."""
    source = ["--params" if line.preset.endswith((".yaml", ".yml")) else "--preset", line.preset]
    return shlex.join(["generalist", "train", *source, *(word for one in changes for word in ("-S", one))])
