"""A registered model of a test's own, in a project that a module's tests share."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mlflow import MlflowClient

from pipelines.registry import Registration, register
from pipelines.registry.model_versions import with_alias
from pipelines.results import Results
from pipelines.tracking import connect
from pipelines.workspace import Workspace
from tests import tracking_factory as factory

OTHER_PROTOCOL = factory.PROTOCOL.model_copy(update={"seed": 1})
GOOD = factory.Model(seed=1)
BETTER = replace(GOOD, seed=2, validation=(19, 13))
WORSE = replace(GOOD, seed=3, validation=(17, 11))


@dataclass(frozen=True)
class Registry:
    """A registered model, at first without versions.

    Attributes:
        workspace: shared, so that the run of a model is made only once.
        name: its own.
        folder: for results.
    """

    workspace: Workspace
    name: str
    folder: Path

    @property
    def section(self) -> dict[str, str]:
        """Of the configuration that registers here."""
        return {"name": self.name}

    @property
    def client(self) -> MlflowClient:
        """MLflow's."""
        return connect(self.workspace)

    @property
    def champion(self) -> int | None:
        """The champion's version."""
        found = with_alias(self.client, self.name, "champion")
        return found.version if found else None

    def results(self, model: factory.Model) -> Results:
        """Return a model's results; written once."""
        folder = self.folder / f"outputs{model.seed}"
        settings = factory.config(registry=self.section)
        return Results(folder) if folder.exists() else model.write(folder, settings=settings)

    def register(self, model: factory.Model, **options: Any) -> Registration:
        """Register a model."""
        return self.take(self.results(model), **options)

    def take(self, results: Results, **options: Any) -> Registration:
        """Register results."""
        return register(self.workspace, results, data=lambda _: factory.DATA, **options)
