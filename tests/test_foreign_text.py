"""Names and text from elsewhere, as a terminal and pages show them: as they are, never as commands."""

import io
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.table import Table

from generalist.export.integrity import read_metadata, with_digests
from generalist.untrusted import code, lines, markdown, printable
from pipelines.progress import Progress
from pipelines.terminal import Terminal
from tests.command_line import generalist
from tests.tracking_factory import Model

HOSTILE = [
    "[/]",
    "[red]x[/red]",
    ":skull:",
    "\x1b[2J\x1b]0;title\x07",
    "a\rb",
    "\u202egnp.exe",
    "\x9b31m",
    "<b>&",
    "`x`",
]


@given(st.text() | st.sampled_from(HOSTILE))
def test_a_line_stays_a_line(text: str) -> None:
    """Nothing in it moves the cursor, and what can be shown is."""
    shown = printable(text)
    assert len(shown.splitlines()) <= 1
    assert not any(ord(mark) < 32 or 0x7F <= ord(mark) < 0xA0 for mark in shown)
    assert printable(shown) == shown
    assert lines(text).count("\n") == text.count("\n")


@given(st.text() | st.sampled_from(HOSTILE))
def test_a_table_shows_cells_as_they_are(text: str) -> None:
    """Neither markup nor emoji codes, in cells, titles and lines."""
    file = io.StringIO()
    table = Table(text, title=text, caption=text)
    table.add_row(text)
    console = Terminal(file=file, width=4000, force_terminal=False)
    console.print(table)
    console.print(text, soft_wrap=True)
    assert (
        lines(text).rstrip("\n ").splitlines()[-1:] == file.getvalue().rstrip("\n ").splitlines()[-1:]
        or not text.strip()
    )
    assert not any(mark in file.getvalue() for mark in "\x1b\x9b\x07\r\u202e")


@pytest.mark.parametrize("console", [None, Console(file=io.StringIO(), force_terminal=True)])
def test_progress_shows_text_as_it_is(console: Console | None, capfd: pytest.CaptureFixture[str]) -> None:
    """With a terminal and without."""
    progress = Progress(console=console)
    for text in HOSTILE:
        progress.say(text)
    shown = (
        console.file.getvalue()
        if console is not None and isinstance(console.file, io.StringIO)
        else capfd.readouterr().err
    )
    assert "[/]" in shown
    assert "[red]x[/red]" in shown
    assert ":skull:" in shown
    assert "\x1b[2J" not in shown


@given(st.text() | st.sampled_from(HOSTILE))
def test_markdown_and_code_keep_text_together(text: str) -> None:
    """Every mark that means something is escaped; a span of code ends where the text does."""
    escaped = markdown(text)
    assert len(escaped.splitlines()) <= 1
    bare = escaped.replace("\\\\", "")
    assert all(bare[at - 1] == "\\" for at, mark in enumerate(bare) if mark in "`*_[]<>|")
    span = code(text)
    ticks = span[: len(span) - len(span.lstrip("`"))]
    assert span.endswith(ticks)
    assert ticks not in span[len(ticks) : -len(ticks)]


def test_trace_and_predict_show_hostile_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Class names and a learner of a sealed file, and the names of images."""
    results = Model().write(tmp_path / "outputs")
    metadata = read_metadata(results.onnx)
    import json

    names = json.loads(metadata["class_names"])
    hostile = [HOSTILE[index % len(HOSTILE)] + str(index) for index in range(len(names))]
    given = {
        key: value for key, value in metadata.items() if not key.endswith("graph_digest") and key != "metadata_digest"
    }
    given |= {"class_names": json.dumps(hostile), "learner": "[/] \x1b[31m"}
    model = tmp_path / "hostile.onnx"
    model.write_bytes(with_digests(onnx.load(results.onnx), given))
    monkeypatch.chdir(tmp_path)
    traced = generalist("trace", str(model))
    assert traced.exit_code == 1, traced.output  # nothing here knows it
    assert "[/]" in traced.stdout
    assert r"\x1b[31m" in traced.stdout
    assert not any(mark in traced.output for mark in "\x1b\x9b\x07\r\u202e")
    import onnxruntime

    _, channels, height, width = onnxruntime.InferenceSession(model).get_inputs()[0].shape
    from PIL import Image

    shape = (height, width) if channels == 1 else (height, width, channels)
    Image.fromarray(np.zeros(shape, dtype=np.uint8)).save(tmp_path / "a.png")
    shutil.copy(tmp_path / "a.png", tmp_path / "[red]\x1b[2J.png")
    for words in ((), ("--json",), ("--top", str(len(names)))):
        said = generalist("predict", ".", "--model", str(model), *words)
        assert said.exit_code == 0, said.output
        assert not any(mark in said.output for mark in "\x1b\x9b\x07\r\u202e")
    assert "[/]" in said.stdout
