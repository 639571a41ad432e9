"""The wheel, and the pinned dependencies."""

import os
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

pytestmark = pytest.mark.long

PROJECT = "generalist"


def pip(*arguments: str | Path, program: tuple[str | Path, ...] = (sys.executable, "-m", "pip")) -> None:
    """Run pip, without an index: whatever it should need to download is a failure.

    Whether everything that is installed here fits together is not what it is asked.
    """
    completed = subprocess.run(
        [*program, *arguments],
        env=os.environ | {"PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_WARN_CONFLICTS": "false"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert completed.returncode == 0, completed.stdout[-2000:] + completed.stderr


@pytest.fixture(scope="module")
def wheel(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, root)
    (built,) = folder.glob("*.whl")
    return built


def declared(root: Path) -> dict[str, Any]:
    """Return the table `project` of pyproject.toml."""
    table: dict[str, Any] = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return table


def requirements(root: Path, *extras: str) -> list[Requirement]:
    """Return what the project asks for, with these extras."""
    table = declared(root)
    lines = table["dependencies"] + [line for extra in extras for line in table["optional-dependencies"][extra]]
    return [requirement for requirement in map(Requirement, lines) if requirement.name != PROJECT]


def pins(root: Path) -> dict[str, Version]:
    """constraints.txt: version by name."""
    lines = (root / "constraints.txt").read_text(encoding="utf-8").splitlines()
    parted = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(name): Version(version) for name, version in parted}


def closure(wanted: list[Requirement]) -> set[str]:
    """All distributions that these requirements bring into this environment."""
    found: set[str] = set()
    todo = [(canonicalize_name(r.name), frozenset(r.extras)) for r in wanted]
    seen = set(todo)
    while todo:
        name, extras = todo.pop()
        found.add(name)
        for line in metadata.requires(name) or []:
            requirement = Requirement(line)
            if requirement.marker and not any(requirement.marker.evaluate({"extra": e}) for e in extras or {""}):
                continue
            further = (canonicalize_name(requirement.name), frozenset(requirement.extras))
            if further not in seen:
                seen.add(further)
                todo.append(further)
    return found


def test_the_wheel_installs_in_an_environment_without_the_project(
    wheel: Path, fresh_environment: Path, tmp_path: Path
) -> None:
    """From the wheel alone: both packages, the presets, and the command."""
    # Without resolving the dependencies: that takes pip a while, and the Dockerfile's test does it.
    pip("install", "--no-deps", wheel, program=(fresh_environment / "bin" / "pip",))
    program = (
        "import generalist.config as c, pathlib;"
        "print(c.__file__); print(*c.preset_names()); [c.load(preset=name) for name in c.preset_names()]"
    )
    completed = subprocess.run(
        [fresh_environment / "bin" / "python", "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert completed.returncode == 0, completed.stderr
    where, presets = completed.stdout.splitlines()
    assert Path(where).is_relative_to(fresh_environment)
    assert "digits" in presets.split()
    subprocess.run([fresh_environment / "bin" / "generalist", "--help"], cwd=tmp_path, capture_output=True, check=True)


def test_the_wheel_holds_every_file_of_both_packages(wheel: Path, root: Path) -> None:
    """Templates and styles travel with the modules that read them."""
    shipped = set(zipfile.ZipFile(wheel).namelist())
    files = {
        path.relative_to(root).as_posix()
        for package in (PROJECT, "pipelines")
        for path in (root / package).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert files - shipped == set()


def test_every_dependency_has_a_floor_and_a_ceiling(root: Path) -> None:
    """What a bound leaves open, a release of tomorrow may break."""
    for requirement in requirements(root, *declared(root)["optional-dependencies"]):
        operators = {specifier.operator for specifier in requirement.specifier}
        assert operators == {">=", "<"}, requirement


def test_the_constraints_pin_all_that_is_installed(root: Path) -> None:
    """`make` installs the same versions today and next year, and they lie within the bounds."""
    wanted, pinned = requirements(root, *declared(root)["optional-dependencies"]), pins(root)
    assert {str(r) for r in wanted if pinned[canonicalize_name(r.name)] not in r.specifier} == set()
    unpinned = closure(wanted) - set(pinned)
    assert unpinned == set()


def test_the_constraints_are_what_these_tests_run_with(root: Path) -> None:
    """A green run speaks of the pinned versions."""
    pinned = pins(root)
    installed = {
        name: Version(Version(metadata.version(name)).public) for name in closure(requirements(root, "pipelines"))
    }
    assert {name: version for name, version in installed.items() if pinned.get(name, version) != version} == {}


@pytest.mark.long
def test_a_project_begins_outside_of_the_repository(wheel: Path, fresh_environment: Path, tmp_path: Path) -> None:
    """By the wheel alone: DVC prepares the data, a plan is made, and only other code or parameters make it stale."""
    pip("install", "--no-deps", wheel, program=(fresh_environment / "bin" / "pip",))
    programs = f"{fresh_environment / 'bin'}{os.pathsep}{os.environ['PATH']}"

    def said(folder: Path, *command: str) -> str:
        done = subprocess.run(
            command,
            cwd=folder,
            env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"PATH": programs},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert "generalist run" in said(tmp_path, "generalist", "init", "mine")
    mine = tmp_path / "mine"
    said(mine, "git", "init", "-q")
    dvc = (str(fresh_environment / "bin" / "python"), "-m", "dvc")
    assert "Running stage 'prepare'" in said(mine, *dvc, "repro", "prepare")
    assert "Stage 'prepare' didn't change" in said(mine, *dvc, "repro", "prepare")
    assert "warm-up: epochs 1 to 25" in said(mine, "generalist", "plan")
    installed = next(fresh_environment.glob("lib/python3*/site-packages/pipelines/early_imports.py"))
    installed.write_text(installed.read_text(encoding="utf-8") + "# other code\n", encoding="utf-8")
    assert "Running stage 'prepare'" in said(mine, *dvc, "repro", "prepare")
