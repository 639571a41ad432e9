"""The picture of an ablation: a map for each accuracy over two dimensions, or points with intervals over all cells."""

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from generalist.records import Accuracy, Measured
from pipelines.trials import StudyRecord, TrialRecord
from pipelines.tuning.summary import short

_SHOWN = ("natural", "robust", "harmonic mean")
_COLOURS = "viridis"


def png(record: StudyRecord, title: str) -> bytes:
    """Return the picture as PNG.

    Args:
        record: of a grid; cells that have no values stay empty.
        title: above it.
    """
    complete = [trial for trial in record.trials if trial.validation is not None]
    paths = sorted({path for trial in record.trials for path in trial.params})
    figure = Figure(figsize=(11, 4 if len(paths) == 2 else 1.6 + 0.35 * max(3, len(complete))), layout="constrained")
    figure.suptitle("\n".join([title, *_how_fine(complete)]))
    axes: Sequence[Axes] = list(figure.subplots(1, len(_SHOWN)))
    for own, name in zip(axes, _SHOWN, strict=True):
        if len(paths) == 2:
            _map(own, complete, (paths[0], paths[1]), name)
        else:
            _points(own, complete, name, labelled=own is axes[0])
        own.set_title(f"{name}, %")
    target = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(target, format="png", metadata={"Software": "generalist"})
    return target.getvalue()


def _how_fine(trials: Sequence[TrialRecord]) -> list[str]:
    """Say which differences mean anything, where colours would make something of any of them."""
    found = [trial.validation for trial in trials if trial.validation is not None]
    if not found:
        return []
    n, widest = found[0].natural.n, max(own.robust.interval[1] - own.robust.interval[0] for own in found)
    return [f"validation split, n = {n}: an image is {100 / n:.1f} points, a 95 % interval up to {100 * widest:.0f}"]


def _map(axes: Axes, trials: Sequence[TrialRecord], paths: tuple[str, str], name: str) -> None:
    across, up = (_values(trials, path) for path in paths)
    cells = np.full((len(up), len(across)), np.nan)
    for trial in trials:
        assert trial.validation is not None  # the caller leaves others out
        place = up.index(str(trial.params[paths[1]])), across.index(str(trial.params[paths[0]]))
        cells[place] = 100 * _value(trial.validation, name)
    axes.imshow(cells, origin="lower", aspect="auto", cmap=_COLOURS)
    middle = (np.nanmin(cells) + np.nanmax(cells)) / 2 if np.isfinite(cells).any() else 0.0
    for (row, column), value in np.ndenumerate(cells):
        if np.isfinite(value):
            axes.text(column, row, f"{value:.1f}", ha="center", va="center", color="w" if value < middle else "k")
    axes.set_xticks(range(len(across)), across)
    axes.set_yticks(range(len(up)), up)
    axes.set_xlabel(short(paths[0]))
    axes.set_ylabel(short(paths[1]))


def _points(axes: Axes, trials: Sequence[TrialRecord], name: str, *, labelled: bool) -> None:
    """Draw a row for each cell; intervals are those of its images, not of seeds."""
    labels = [", ".join(f"{short(path)} {value}" for path, value in trial.params.items()) for trial in trials]
    places = list(range(len(trials)))[::-1]
    for place, trial in zip(places, trials, strict=True):
        assert trial.validation is not None  # the caller leaves others out
        own = {"natural": trial.validation.natural, "robust": trial.validation.robust}.get(name)
        if isinstance(own, Accuracy):
            axes.plot([100 * end for end in own.interval], [place, place], color="0.6")
        axes.plot([100 * _value(trial.validation, name)], [place], "o", color="C0")
    axes.set_yticks(places, labels if labelled else [""] * len(labels))
    axes.margins(y=0.1)
    axes.grid(visible=True, axis="x", alpha=0.3)


def _values(trials: Sequence[TrialRecord], path: str) -> list[str]:
    """Return values in the order of numbers where they are numbers, else in that of the grid."""
    found = list(dict.fromkeys(str(trial.params[path]) for trial in trials))
    try:
        return sorted(found, key=float)
    except ValueError:
        return found


def _value(found: Measured, name: str) -> float:
    return {"natural": found.natural.value, "robust": found.robust.value}.get(name, found.harmonic)
