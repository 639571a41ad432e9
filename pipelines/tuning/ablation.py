"""Ablations: declared grids, and the table and the picture that come of them."""

import csv
import io
import json
from pathlib import Path

from generalist.config import Config, load, preset_path, with_overrides
from generalist.config.plain_yaml import read_plain
from generalist.config.section import nearest
from generalist.errors import BadInput
from pipelines.trial_records import StudyRecord, TrialRecord
from pipelines.tuning.summary import short

Row = dict[str, str]


def names() -> list[str]:
    """Return the ablations that come with the project."""
    return sorted(path.stem for path in _folder().glob("*.yaml"))


def about(name: str) -> str:
    """Return the first line of an ablation."""
    return path_of(name).read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")


def path_of(name: str) -> Path:
    """Return the file of an ablation, by its name, or one of the user's own.

    Raises:
        BadInput: there is none.
    """
    is_path = name.endswith((".yaml", ".yml"))
    if not is_path and name not in names():
        raise BadInput(f"there is no ablation '{name}'; {nearest(name, names())}")
    return Path(name) if is_path else _folder() / f"{name}.yaml"


def read(name: str, *, preset: str | None, overrides: list[str]) -> Config:
    """Return the grid of an ablation over its preset, or another one.

    Raises:
        BadInput: the file is no ablation, or its grid doesn't fit the preset.
    """
    path = path_of(name)
    written = read_plain(path)
    if not isinstance(written, dict) or set(written) != {"preset", "space"}:
        raise BadInput(f"{path.name} is no ablation: it needs the keys preset and space, and no others")
    grid = [f"tuning.space={json.dumps(written['space'])}", "tuning.sampler=grid", "tuning.pruner=none"]
    return with_overrides(load(preset=preset or str(written["preset"])), [*grid, *overrides])


def rows(record: StudyRecord) -> list[Row]:
    """Return a row for each point of the grid: its place, then what came of it in per cent, with 95 % intervals."""
    return [_row(trial) for trial in record.trials]


def as_csv(record: StudyRecord) -> bytes:
    """Return the table for other programs: shares, not per cent."""
    text = io.StringIO()
    paths = sorted({path for trial in record.trials for path in trial.params})
    writer = csv.writer(text, lineterminator="\n")
    ends = ["low", "high"]
    writer.writerow(
        [*paths, "n", "natural", *(f"natural_{end}" for end in ends), "robust", *(f"robust_{end}" for end in ends),
         "harmonic", "epoch", "epochs_asked", "epochs_trained", "state"]
    )  # fmt: skip
    for trial in record.trials:
        validation = trial.validation
        measured: list[float | str] = [""] * 8 if validation is None else [
            validation.natural.n, validation.natural.value, *validation.natural.interval,
            validation.robust.value, *validation.robust.interval, validation.harmonic,
        ]  # fmt: skip
        place = [trial.params.get(path, "") for path in paths]
        cost = [trial.epoch, trial.epochs_asked, trial.epochs_trained, trial.state]
        writer.writerow([*place, *measured, *cost])
    return text.getvalue().encode()


def _row(trial: TrialRecord) -> Row:
    row = {short(path): str(value) for path, value in trial.params.items()}
    if trial.validation is None:
        return {**row, "natural": trial.state, "robust": trial.reason or "", "harmonic mean": ""}
    validation = trial.validation
    return {
        **row,
        "natural": str(validation.natural),
        "robust": str(validation.robust),
        "harmonic mean": f"{100 * validation.harmonic:.1f} %",
    }


def _folder() -> Path:
    return preset_path("digits").parent / "ablations"
