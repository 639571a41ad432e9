"""Only documented modules of Prefect, MLflow, DVC and Optuna are imported, but for those that are listed with a reason."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

LIBRARIES = {"dvc", "mlflow", "optuna", "prefect"}
DOCUMENTED = {
    "mlflow": "https://mlflow.org/docs/latest/api_reference/python_api/mlflow.html",
    **dict.fromkeys(
        (
            "mlflow.artifacts",
            "mlflow.entities",
            "mlflow.exceptions",
            "mlflow.models",
            "mlflow.onnx",
            "mlflow.pyfunc",
            "mlflow.types",
        ),
        "https://mlflow.org/docs/latest/api_reference/python_api",
    ),
    **dict.fromkeys(
        (
            "optuna",
            "optuna.distributions",
            "optuna.importance",
            "optuna.pruners",
            "optuna.samplers",
            "optuna.storages",
            "optuna.storages.journal",
            "optuna.trial",
            "optuna.visualization",
        ),
        "https://optuna.readthedocs.io/en/stable/reference",
    ),
    **dict.fromkeys(
        (
            "prefect",
            "prefect.artifacts",
            "prefect.cache_policies",
            "prefect.client.orchestration",
            "prefect.client.schemas.filters",
            "prefect.client.schemas.objects",
            "prefect.context",
            "prefect.exceptions",
            "prefect.futures",
            "prefect.runtime",
            "prefect.settings",
            "prefect.states",
            "prefect.task_runners",
            "prefect.types.entrypoint",
        ),
        "https://docs.prefect.io/v3/api-ref/python",
    ),
    "prefect.logging.handlers": "https://docs.prefect.io/v3/api-ref/python/prefect-logging-handlers, APILogHandler.flush",
}
"""Modules by where they are documented."""
KEPT = {
    "prefect.events.worker": "EventsWorker is documented, its drain_all is not: see docs/decisions.md",
    "prefect.server.api.server": "create_app is documented, the rest of the server is not: see docs/decisions.md",
}
"""The others, with the reason."""
BY_NAME = {"import_all", "import_module", "imported", "run_module"}
"""Functions that import what strings name."""


def modules(source: str) -> Iterator[str]:
    """Yield modules of the libraries that code imports, by statements or by their names in strings."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                told = [own.name for own in names]
            case ast.ImportFrom(module=str(module), names=names, level=0):
                private = [f"{module}.{own.name}" for own in names if own.name.startswith("_")]
                told = [module, *private]
            case ast.Call(func=ast.Name(id=called) | ast.Attribute(attr=called), args=arguments) if called in BY_NAME:
                told = [own.value for own in arguments if isinstance(own, ast.Constant) and isinstance(own.value, str)]
            case _:
                continue
        yield from (name for name in told if name.partition(".")[0] in LIBRARIES)


def foreign(source: str) -> set[str]:
    """Return modules of the libraries that are neither documented nor listed."""
    return {*modules(source)} - DOCUMENTED.keys() - KEPT.keys()


def test_nothing_imports_a_private_module(root: Path) -> None:
    """Nor one that the library's own pages say nothing about."""
    found = {str(path): foreign(path.read_text(encoding="utf-8")) for path in (root / "pipelines").rglob("*.py")}
    assert {path: own for path, own in found.items() if own} == {}


def test_what_is_listed_is_imported(root: Path) -> None:
    """A module that nobody needs any more leaves the list."""
    code = [path.read_text(encoding="utf-8") for path in (root / "pipelines").rglob("*.py")]
    assert {*DOCUMENTED, *KEPT} == {name for source in code for name in modules(source)}


@pytest.mark.parametrize(
    "line",
    [
        "from prefect.server.database import provide_database_interface",
        "import mlflow.store.tracking.sqlalchemy_store",
        "from optuna.storages._rdb import models",
        "from prefect.flows import _helper",
        "import_all('dvc.repo')",
    ],
)
def test_a_private_module_is_found(line: str) -> None:
    """Also among names, in functions and in strings."""
    assert foreign(f"def within() -> None:\n    {line}\n")
