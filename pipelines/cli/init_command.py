"""`generalist init`: a project outside of this repository, from the files that the wheel carries."""

import hashlib
from pathlib import Path
from typing import Annotated

import typer

from generalist.errors import BadInput
from pipelines.cli.shell import say

_FILES = ("dvc.yaml", ".gitignore", ".dvcignore", ".dvc/config", ".dvc/.gitignore", ".dvc/plots/learners.json")
_RAW = "data/raw/README.md"
_CODE = """  code:
    desc: Which code is installed; where it is another one, everything after it is stale
    cmd: generalist code > code.txt
    always_changed: true
    outs:
      - code.txt: {cache: false}

"""


def init(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="New, or empty.", show_default=False)],
) -> None:
    """Create a project in a folder."""
    from generalist.config import preset_path

    contents = {name: (_project_files() / name).read_text(encoding="utf-8") for name in (*_FILES, _RAW)}
    contents["dvc.yaml"] = _stages_without_code(contents["dvc.yaml"])
    contents["params.yaml"] = preset_path("digits").read_text(encoding="utf-8")
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise BadInput(f"{folder} is there and not empty: name a new folder for the project")
        for name, content in contents.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(content, encoding="utf-8")
    except OSError as error:
        raise BadInput(f"{folder} can't be written ({error.strerror}): name a folder of yours") from None
    say(
        f"{folder} is a project on digits; its configuration is params.yaml (others: `generalist config presets`).\n"
        f"Next: cd {folder} && git init && generalist run"
    )


def code() -> None:
    """Print the version and the digest of the installed code."""
    from importlib.metadata import version

    total = hashlib.sha256()
    packages = Path(__file__).parent.parent.parent
    for path in sorted(path for name in ("generalist", "pipelines") for path in (packages / name).rglob("*.py")):
        total.update(f"{path.relative_to(packages).as_posix()}\0".encode() + path.read_bytes())
    typer.echo(f"generalist {version('generalist')} {total.hexdigest()}")


def _project_files() -> Path:
    """Return where a project's files are: inside the package when installed from a wheel, at the root of a checkout."""
    package = Path(__file__).parent.parent
    return package / "project" if (package / "project").is_dir() else package.parent


def _stages_without_code(stages: str) -> str:
    """Return the stages as they are where the code is no folder of the project."""
    head, begin, rest = stages.partition("stages:\n")
    rest = rest.replace("      - generalist/data\n", "      - code.txt\n")
    rest = rest.replace("      - generalist\n      - pipelines\n", "      - code.txt\n")
    return head + begin + _CODE + rest
