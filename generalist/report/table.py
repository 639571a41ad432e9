"""The curves as a table, for `dvc plots` and spreadsheets."""

import csv
import io
from pathlib import Path

from generalist.records import History, Measured
from generalist.report.looks import GLOBAL
from generalist.writing import write_atomically

COLUMNS = ("epoch", "learner", "natural", "robust", "loss")


def write_curves(history: History, folder: Path) -> Path:
    """Write `curves.csv` into an existing folder and return its path: one row per learner and epoch, by epoch.

    Columns: epoch (done, from 1), learner (an expert's name, or `global`), natural and robust (validation
    accuracies in [0, 1]; empty at epochs that were not measured), loss (mean training loss; empty for the
    global learner, which is not trained itself).
    """
    rows = [_row(r.epoch, r.expert, r.validation, repr(r.loss)) for r in history.epochs]
    rows += [_row(r.epoch, GLOBAL, r.validation, "") for r in history.course]
    rows.sort(key=lambda row: row[0])
    path = folder / "curves.csv"
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([COLUMNS, *rows])
    write_atomically(path, text.getvalue().encode())
    return path


def _row(epoch: int, learner: str, validation: Measured | None, loss: str) -> tuple[int, str, str, str, str]:
    natural, robust = (repr(validation.natural.value), repr(validation.robust.value)) if validation else ("", "")
    return epoch, learner, natural, robust, loss
