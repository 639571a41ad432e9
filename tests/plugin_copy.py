"""A copy of the library with one file more, and a program that runs with it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

DONE = "all of it"
"""What a program prints at its end."""


def run_with(root: Path, folder: Path, file: str, text: str, program: str) -> None:
    """Put a file into a copy of the library, and let a program that gets the folder come to its end there."""
    shutil.copytree(root / "generalist", folder / "generalist", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(root / "presets", folder / "presets")
    (folder / "generalist" / file).write_text(text, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == f"{DONE}\n", done.stderr
