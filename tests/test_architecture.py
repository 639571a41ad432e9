"""The layers of the project, and what importing its parts costs."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

LINT_IMPORTS = Path(sys.executable).with_name("lint-imports")


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    """Return what import-linter says of the packages in a folder."""
    return subprocess.run(
        [LINT_IMPORTS, "--no-cache", "--no-logo"], cwd=folder, capture_output=True, text=True, check=False
    )


@pytest.fixture
def copied(root: Path, tmp_path: Path) -> Path:
    """A copy of both packages and their contracts, to be spoilt."""
    for package in ("generalist", "pipelines"):
        shutil.copytree(root / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(root / "pyproject.toml", tmp_path)
    return tmp_path


def test_the_import_contracts_hold(root: Path) -> None:
    """Every module imports only from earlier on the journey of the data."""
    completed = lint(root)
    assert completed.returncode == 0, completed.stdout + completed.stderr


JOURNEY = "The library follows the journey of the data"
BREACHES = (
    ("generalist.mixing", "mlflow", "The library knows nothing of its orchestration"),
    ("generalist.records", "torch", "Reading the configuration costs no torch"),
    ("generalist.attacks.square", "generalist.attacks.apgd", "Attacks differ; their cascade composes them"),
    (
        "generalist.objectives.trades",
        "generalist.objectives.natural",
        "One more objective, perturbation or source touches no other",
    ),
    ("generalist.models.resnet18", "generalist.models.small_cnn", "One more architecture touches no other"),
    ("generalist.models.heads.plain", "generalist.models.heads.dummy", "One more head touches no other"),
    ("generalist.threats.l2", "generalist.threats.linf", "One more norm touches no other"),
    ("generalist.threats.threat", "generalist.experts", JOURNEY),
    ("pipelines.steps.opening", "mlflow", "Two packages speak to MLflow"),
    ("pipelines.steps.opening", "prefect", "Flows, their artifacts, servers and deployment speak to Prefect"),
    ("pipelines.steps.opening", "pipelines.cli", "Orchestration sits on steps, steps on the library"),
)
"""A module, what it must not import, and the contract that says so."""


def test_breaches_are_reported(copied: Path) -> None:
    """Each under its own contract."""
    for module, imported, _ in BREACHES:
        with (copied / module.replace(".", "/")).with_suffix(".py").open("a", encoding="utf-8") as file:
            file.write(f"\nimport {imported}\n")
    told = lint(copied).stdout.partition("Broken contracts")[2]
    sections = dict(re.findall(r"^(\S.*)\n-{3,}\n((?:.*\n)*?)(?=\S.*\n-{3,}\n|\Z)", told, re.MULTILINE))
    missing = [
        (module, imported)
        for module, imported, contract in BREACHES
        if f"{module} -> {imported} (l." not in sections.get(contract, "")
    ]
    assert missing == [], told


def test_a_stray_module_is_reported(copied: Path) -> None:
    """One that has no place in the journey."""
    (copied / "generalist" / "utils.py").touch()
    completed = lint(copied)
    assert completed.returncode == 1
    assert f"{JOURNEY} BROKEN" in completed.stdout, completed.stdout + completed.stderr


def test_reading_the_configuration_loads_no_torch(root: Path) -> None:
    """`import generalist.config` stays as cheap as reading a file; import-linter sees edges, not what really loads."""
    program = (
        "import sys, generalist.config, generalist.records; print(*sorted({'torch', 'torchvision'} & set(sys.modules)))"
    )
    completed = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    assert completed.stdout.split() == []


@pytest.mark.long  # it imports all of torch; `make check` shows by the import contracts that nothing asks for more
def test_the_library_works_without_the_pipelines_packages(root: Path) -> None:
    """A GPU machine with nothing but torch and the library's own dependencies can import all of it."""
    program = """
import importlib, pkgutil, sys
for absent in ("pipelines", "mlflow", "prefect", "dvc", "optuna", "typer", "rich", "fastapi", "filelock"):
    sys.modules[absent] = None  # importing it fails from here on
import generalist
names = [module.name for module in pkgutil.walk_packages(generalist.__path__, "generalist.")]
for name in names:
    importlib.import_module(name)
print(len(names))
"""
    completed = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=False)
    assert completed.returncode == 0, completed.stderr
    assert int(completed.stdout) > 20
