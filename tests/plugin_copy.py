"""A copy of the library with some files more, and a program that runs with it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

DONE = "all of it"
"""What a program prints at its end."""


def run_with(root: Path, folder: Path, files: dict[str, str], program: str) -> None:
    """Put files into a copy of the library, and let a program that gets the folder come to its end there."""
    for name in ("generalist", "presets"):
        shutil.copytree(root / name, folder / name)
    for file, text in files.items():
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
