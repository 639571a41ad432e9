"""The Dockerfile: what its linter says, and what its steps do where there is no Docker engine."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

pytestmark = pytest.mark.long

HADOLINT = Path(sys.executable).with_name("hadolint")
Instruction = tuple[str, str]


def instructions(dockerfile: Path) -> list[Instruction]:
    """Return the instructions in order: keyword and the rest, continued lines joined."""
    lines = [line for line in dockerfile.read_text(encoding="utf-8").splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in joined.splitlines() if line.strip()]


def values(steps: list[Instruction], keyword: str) -> dict[str, str]:
    """Return the names and values that all instructions `ENV` or `ARG` set."""
    words = [word for key, rest in steps if key == keyword for word in shlex.split(rest)]
    return dict(word.split("=", 1) for word in words)


def in_context(path: str, patterns: list[str]) -> bool:
    """Whether Docker sends a file to its engine: the last pattern that matches it, or a folder above it, decides."""
    places = [path, *(parent.as_posix() for parent in Path(path).parents if parent.name)]
    kept = True
    for pattern in patterns:
        bare = pattern.removeprefix("!")
        depth = bare.count("/")
        found = (
            any(fnmatchcase(Path(place).name, bare.removeprefix("**/")) for place in places)
            if bare.startswith("**/")
            else any(place.count("/") == depth and fnmatchcase(place, bare) for place in places)
        )
        if found:
            kept = pattern.startswith("!")
    return kept


@pytest.fixture(scope="module")
def steps(root: Path) -> list[Instruction]:
    """The Dockerfile's instructions."""
    return instructions(root / "Dockerfile")


@pytest.fixture(scope="module")
def context(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `docker build` would send to the engine."""
    patterns = (root / ".dockerignore").read_text(encoding="utf-8").split("\n")
    patterns = [line for line in patterns if line and not line.startswith("#")]
    folder = tmp_path_factory.mktemp("context")
    names = {line[1:].partition("/")[0] for line in patterns if line.startswith("!")}
    tops = [root / name for name in sorted(names)]
    files = [path for top in tops for path in ([top] if top.is_file() else top.rglob("*")) if path.is_file()]
    for path in files:
        name = path.relative_to(root)
        if in_context(name.as_posix(), patterns):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, folder / name)
    return folder


def test_the_linter_finds_nothing(root: Path) -> None:
    """hadolint has no complaint, not even for information."""
    completed = subprocess.run(
        [HADOLINT, "--no-color", root / "Dockerfile"], capture_output=True, text=True, check=False
    )
    assert completed.returncode == 0, completed.stdout + completed.stderr


def test_the_image_is_slim_pinned_and_not_root(steps: list[Instruction]) -> None:
    """One slim base with a tag; the flow runs as an ordinary user and is what runs by default."""
    bases = [rest for keyword, rest in steps if keyword == "FROM"]
    assert len(bases) == 1
    assert re.fullmatch(r"python:3\.\d+(\.\d+)?-slim(-[a-z]+)?", bases[0])
    users = [rest for keyword, rest in steps if keyword == "USER"]
    assert users
    assert users[-1] not in {"0", "root"}
    assert dict(steps)["ENTRYPOINT"] == '["generalist"]'
    assert dict(steps)["CMD"] == '["train"]'


def test_telemetry_is_off_and_no_secret_is_baked_in(steps: list[Instruction], context: Path) -> None:
    """The image reports to nobody, and neither its variables nor its files hold credentials."""
    variables = values(steps, "ENV")
    off = {"DO_NOT_TRACK", "PREFECT_SERVER_ANALYTICS_ENABLED", "MLFLOW_DISABLE_TELEMETRY", "DVC_NO_ANALYTICS"}
    assert off <= set(variables)
    names = [*variables, *values(steps, "ARG"), *(path.name for path in context.rglob("*"))]
    suspicious = re.compile(r"secret|token|passw|credential|api_?key|\.env$|id_rsa|\.pem$|\.local$", re.IGNORECASE)
    assert [name for name in names if suspicious.search(name)] == []


def test_the_context_is_small_and_whole(context: Path) -> None:
    """Sources go to the engine; data, results, environments and history don't."""
    top = {path.name for path in context.iterdir()}
    assert {"generalist", "pipelines", "presets", "params.yaml", "pyproject.toml", "constraints.txt"} <= top
    assert top & {".git", ".venv", "outputs", "runs", "tests", ".generalist", "mlflow.db"} == set()
    assert {path.name for path in (context / "data").rglob("*")} == {"raw", "README.md"}
    assert {path.name for path in (context / ".dvc").iterdir()} == {"config", ".gitignore", "plots"}
    assert not list(context.rglob("__pycache__"))
    assert sum(path.stat().st_size for path in context.rglob("*") if path.is_file()) < 2_000_000


def test_its_steps_install_a_working_command(
    steps: list[Instruction], context: Path, fresh_environment: Path, tmp_path: Path
) -> None:
    """The COPY and pip steps as they are written, in a clean environment, then the entry point.

    Left out is what only an image can have: the base, the user and the volume.
    """
    image = tmp_path / "image"
    place = image
    environment = {
        "PATH": f"{fresh_environment}/bin:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        # As a build without network; hatchling is installed here already.
        "PIP_NO_INDEX": "1",
        "PIP_NO_BUILD_ISOLATION": "false",
        # Else pip examines all that is installed here once more, after it has resolved it.
        "PIP_NO_WARN_CONFLICTS": "false",
    }
    ran = 0
    for keyword, rest in steps:
        if keyword == "WORKDIR":
            place = image / rest.lstrip("/")
            place.mkdir(parents=True, exist_ok=True)
        elif keyword == "COPY":
            source, target = [word for word in shlex.split(rest) if not word.startswith("--")]
            _copy(context / source, image / target.lstrip("/") if target.startswith("/") else place / target)
        elif keyword == "ENV":
            environment |= dict(word.split("=", 1) for word in shlex.split(rest))
        elif keyword == "RUN" and rest.startswith("pip "):
            completed = subprocess.run(
                rest, shell=True, cwd=place, env=environment, capture_output=True, text=True, check=False
            )
            assert completed.returncode == 0, completed.stdout[-2000:] + completed.stderr
            ran += 1
    assert ran == 1
    entry = json.loads(dict(steps)["ENTRYPOINT"])
    for arguments in (["--help"], [*json.loads(dict(steps)["CMD"]), "--help"], ["config", "check"]):
        completed = subprocess.run(
            [*entry, *arguments], cwd=place, env=environment, capture_output=True, text=True, check=False
        )
        assert completed.returncode == 0, completed.stdout + completed.stderr


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True)
    else:
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target / source.name)
