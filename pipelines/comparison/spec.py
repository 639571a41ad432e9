"""What is compared: rows and curves of presets, declared in a file or named on the command line."""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import Field, ValidationError, model_validator

from generalist.comparison import Published
from generalist.config import Config, Section, load, preset_path, with_overrides
from generalist.config.bounds import Count
from generalist.config.plain_yaml import read_plain
from generalist.config.section import nearest
from generalist.errors import BadInput

COMPARISON = "a comparison"
"""What a name is of, for sentences about wrong ones."""
_BUDGET = re.compile(r"(?P<number>[0-9.]+(?:e[0-9]+)?) *(?P<unit>passes|s)", re.IGNORECASE)


class RowSpec(Section):
    """A training, to be repeated under several seeds."""

    preset: str = Field(description="name of a preset, or the path of a configuration")
    set: tuple[str, ...] = Field((), description="overrides, such as [training.epochs=20]")


class CurveSpec(RowSpec):
    """A training under several values of one option: a curve, which others have to beat."""

    over: str = Field(description="the option's dotted path, such as experts.robust.objective.beta")
    values: tuple[Any, ...] = Field(min_length=2, description="its values, two at least")


class Budget(NamedTuple):
    """What each training may cost."""

    number: float
    unit: str

    @classmethod
    def read(cls, written: str) -> "Budget":
        """Return what words such as `2e6 passes` or `60 s` mean.

        Raises:
            ValueError: nothing.
        """
        found = _BUDGET.fullmatch(written.strip())
        if found is None or not float(found["number"]) > 0:
            raise ValueError(
                f"the budget '{written}' is neither passes nor seconds: give such as '2e6 passes', or '60 s', for each"
                " training"
            )
        return cls(float(found["number"]), found["unit"].lower())

    def __str__(self) -> str:
        return f"{self.number:,.0f} passes" if self.unit == "passes" else f"{self.number:g} s"


class ComparisonSpec(Section):
    """The whole of a comparison."""

    rows: dict[str, RowSpec] = Field(min_length=1, description="trainings by their titles")
    curves: dict[str, CurveSpec] = Field({}, description="curves to beat, by their titles")
    reference: str | None = Field(None, description="the title of the row that differences are from; null: the first")
    evaluation: tuple[str, ...] = Field(
        (), description="overrides for all, such as [evaluation.attack=quick]; all else is the first row's"
    )
    seeds: Annotated[Count, Field(le=100)] = Field(3, description="trainings of each row, of seeds 0, 1, …")
    budget: str | None = Field(
        None, description="what each training may cost, as 2e6 passes or 60 s; null: its preset's epochs"
    )
    published: tuple[Published, ...] = Field((), description="figures of others, to be shown beside")

    @model_validator(mode="after")
    def _fits_together(self) -> "ComparisonSpec":
        if self.budget is not None:
            Budget.read(self.budget)
        if self.reference is not None and self.reference not in self.rows:
            raise ValueError(f"reference: no row is called '{self.reference}'; {nearest(self.reference, [*self.rows])}")
        twice = self.rows.keys() & {title for name, curve in self.curves.items() for title in titles(name, curve)}
        if twice:
            raise ValueError(f"rows and curves share the title '{min(twice)}': call one of them otherwise")
        for override in self.evaluation:
            if not override.startswith("evaluation."):
                raise ValueError(f"evaluation: '{override}' changes no option of evaluation: give it to rows by set")
        return self


def titles(name: str, curve: CurveSpec) -> list[str]:
    """Return the titles of a curve's rows."""
    return [f"{name}, {value}" for value in curve.values]


class Line(NamedTuple):
    """A row as it is to be trained, before seeds and budget."""

    title: str
    curve: str | None
    preset: str
    overrides: tuple[str, ...]

    def config(self, *more: str) -> Config:
        """Return its configuration.

        Raises:
            BadInput: preset or overrides are wrong.
        """
        if _is_file(self.preset):
            return load(Path(self.preset), overrides=[*self.overrides, *more])
        return load(preset=self.preset, overrides=[*self.overrides, *more])


def read(path: Path) -> ComparisonSpec:
    """Read a comparison from a file.

    Raises:
        BadInput: it is none.
    """
    return checked(read_plain(path), path.name)


def checked(written: Any, where: str) -> ComparisonSpec:
    """Check a comparison in plain values.

    Raises:
        BadInput: with one sentence for each mistake.
    """
    try:
        return ComparisonSpec.model_validate(written)
    except ValidationError as error:
        told = [
            f"{where}: {'.'.join(map(str, one['loc']))}{': ' if one['loc'] else ''}"
            f"{one['msg'].removeprefix('Value error, ')}"
            for one in error.errors(include_url=False)
        ]
        raise BadInput("\n".join(dict.fromkeys(told))) from None


def named(name: str) -> Path:
    """Return the file of a comparison that comes with the project, or one of the user's own.

    Raises:
        BadInput: there is none.
    """
    if _is_file(name):
        return Path(name)
    folder = preset_path("digits").parent / "comparisons"
    known = sorted(path.stem for path in folder.glob("*.yaml"))
    if name not in known:
        raise BadInput(f"there is no comparison '{name}'; {nearest(name, known)}")
    return folder / f"{name}.yaml"


def lines(spec: ComparisonSpec) -> list[Line]:
    """Return all rows, those of curves last."""
    rows = [Line(title, None, row.preset, row.set) for title, row in spec.rows.items()]
    for name, curve in spec.curves.items():
        for title, value in zip(titles(name, curve), curve.values, strict=True):
            rows.append(Line(title, name, curve.preset, (*curve.set, f"{curve.over}={value}")))
    return rows


def configurations(spec: ComparisonSpec) -> Iterator[tuple[Line, Config]]:
    """Yield each row with its configuration, all of them evaluated like the first.

    Raises:
        BadInput: a preset or an override is wrong.
    """
    every = lines(spec)
    common = _evaluation(every[0].config(*spec.evaluation))
    for line in every:
        yield line, with_overrides(line.config(), common)


def _evaluation(config: Config) -> Sequence[str]:
    """Return overrides that evaluate another configuration like this one, at its own lambdas and widths."""
    options = config.evaluation.model_dump(mode="json", exclude={"conditions", "widths", "transfers"})
    return [f"evaluation.{key}={json.dumps(value)}" for key, value in options.items()]


def _is_file(name: str) -> bool:
    return name.endswith((".yaml", ".yml"))


def asked(
    presets: Sequence[str], file: str | None, seeds: int | None, budget: str | None, overrides: Sequence[str]
) -> ComparisonSpec:
    """Return a comparison of named presets, or a declared one, with some changes.

    Overrides of the evaluation go to all together, others to each row.

    Raises:
        BadInput: both or none is named, or something is wrong.
    """
    if (file is None) == (not presets):
        raise BadInput("name presets to compare, such as digits digits-pgd-at, or a declared comparison as the file")
    if file is None:
        written: Any = {"rows": {name: {"preset": name} for name in presets}}
    else:
        written = read(named(file)).model_dump(mode="json")
    own = [one for one in overrides if not one.startswith("evaluation.")]
    for row in (*written["rows"].values(), *written.get("curves", {}).values()):
        row["set"] = [*row.get("set", []), *own]
    evaluation = [one for one in overrides if one.startswith("evaluation.")]
    written["evaluation"] = [*written.get("evaluation", []), *evaluation]
    written |= {} if seeds is None else {"seeds": seeds}
    written |= {} if budget is None else {"budget": budget}
    return checked(written, "the comparison")
