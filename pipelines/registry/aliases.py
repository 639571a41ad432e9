"""Who is champion, by whose word, and who was before; and what MLflow's page of the registered model says of it."""

from mlflow import MlflowClient

from generalist.errors import BadInput
from generalist.records import Record
from pipelines.registry.model_versions import CHALLENGER, CHAMPION, FORMER, Version, version_of, with_alias
from pipelines.tracking import connect
from pipelines.workspace import Workspace

_WHAT = (
    "Image classifiers, trained to be accurate and adversarially robust, as ONNX: input `images` float32 [batch,"
    " channels, height, width] in [0, 1], output `logits` float32 [batch, classes]."
)


class Move(Record):
    """A change of champion; `before` is None where there was none."""

    name: str
    before: int | None
    now: int

    def __str__(self) -> str:
        instead = "" if self.before is None else f" instead of version {self.before}"
        return f"{self.name} version {self.now} is champion now{instead}"


def promote(workspace: Workspace, version: int, *, name: str, reason: str) -> Move:
    """Make a version champion by hand; the reason is kept as its tag.

    Raises:
        BadInput: there is no such version, or it is champion already.
    """
    client = connect(workspace)
    with workspace.one_at_a_time("registry"):
        chosen = version_of(client, name, str(version))
        if CHAMPION in chosen.aliases:
            describe(client, name, version)  # a promotion may have been killed before it
            raise BadInput(f"{name} version {version} is champion already")
        client.set_model_version_tag(name, str(version), "promoted_by_hand", reason)
        return set_champion(client, chosen)


def rollback(workspace: Workspace, *, name: str) -> Move:
    """Make the former champion the champion again.

    Raises:
        BadInput: there is no champion, it had no predecessor, or that was deleted.
    """
    client = connect(workspace)
    with workspace.one_at_a_time("registry"):
        present = version_of(client, name, CHAMPION)
        former = present.tags.get(FORMER)
        if former is None or former == str(present.version):
            raise BadInput(f"{name} version {present.version} is the first champion: there is none to go back to")
        back = version_of(client, name, former)
        client.set_model_version_tag(name, str(present.version), "rolled_back", f"to version {former}")
        client.set_registered_model_alias(name, CHAMPION, former)
        describe(client, name, back.version)
        return Move(name=name, before=present.version, now=back.version)


def set_champion(client: MlflowClient, version: Version) -> Move:
    """Give a version the alias champion and note which version had it before; again where that was killed."""
    name, number = version.name, str(version.version)
    before = with_alias(client, name, CHAMPION)
    if before is None:
        if FORMER in version.tags:  # noted where the alias was never set
            client.delete_model_version_tag(name, number, FORMER)
    elif before.version != version.version:
        client.set_model_version_tag(name, number, FORMER, str(before.version))
    if CHALLENGER in version.aliases:
        client.delete_registered_model_alias(name, CHALLENGER)
    client.set_registered_model_alias(name, CHAMPION, number)
    describe(client, name, version.version)
    return Move(name=name, before=before.version if before else None, now=version.version)


def describe(client: MlflowClient, name: str, champion: int | None) -> None:
    """Write the description of a registered model, unless a user has written another.

    Args:
        client: of MLflow.
        name: of the registered model.
        champion: its version; None where there is none.
    """
    if not (client.get_registered_model(name).description or _WHAT).startswith(_WHAT):
        return
    about = "No version is champion yet."
    if champion is not None:
        description = client.get_model_version(name, str(champion)).description
        about = (
            f"The champion is version {champion}. {description}\n\n"
            "`generalist download --output model.onnx` copies its file, `generalist predict IMAGE` uses it; elsewhere"
            f" `mlflow artifacts download --artifact-uri models:/{name}@champion --dst-path champion`."
        )
    client.update_registered_model(name, f"{_WHAT}\n\n{about}")
