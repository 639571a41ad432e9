"""The picture of an ablation: for each accuracy, the points of the grid with their intervals."""

import io
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pipelines.trial_records import StudyRecord
from pipelines.tuning.summary import short


def png(record: StudyRecord, title: str) -> bytes:
    """Return the picture as PNG; intervals are those of a point's images, not of seeds.

    Args:
        record: of a grid; points that have no values are left out.
        title: above it.
    """
    measurements = {trial.number: trial.validation for trial in record.trials if trial.validation is not None}
    points = [record.trials[number].params for number in measurements]
    labels = [", ".join(f"{short(path)} {value}" for path, value in point.items()) for point in points]
    if measurements:
        title += f"\nvalidation split, n = {next(iter(measurements.values())).natural.n}, 95 % intervals"
    figure = Figure(figsize=(11, 1.6 + 0.35 * max(3, len(measurements))), layout="constrained")
    figure.suptitle(title)
    axes: Sequence[Axes] = list(figure.subplots(1, 3, sharey=True))
    for panel, name in zip(axes, ("natural", "robust", "harmonic"), strict=True):
        for place, measured in enumerate(measurements.values()):
            if name != "harmonic":
                low, high = getattr(measured, name).interval
                panel.plot([100 * low, 100 * high], [place, place], color="0.6")
            panel.plot([100 * measured.by(name)], [place], "o", color="C0")
        panel.set_title(f"{name}{' mean' if name == 'harmonic' else ''}, %")
        panel.grid(visible=True, axis="x", alpha=0.3)
    axes[0].set_yticks(range(len(labels)), labels)
    axes[0].invert_yaxis()
    target = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(target, format="png", metadata={"Software": "generalist"})
    return target.getvalue()
