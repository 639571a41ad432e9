"""A finished model to the registry: once for equal weights and protocol, and champion only through all gates."""

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from generalist.config import Config, load
from generalist.errors import BadInput
from generalist.records import Record
from pipelines.registry import gates
from pipelines.registry.aliases import describe, set_champion
from pipelines.registry.champion_evidence import Reevaluate, evidence_of
from pipelines.registry.gates import Evidence
from pipelines.registry.model_versions import (
    CHALLENGER,
    CHAMPION,
    PROTOCOL,
    Version,
    described,
    drop,
    with_alias,
    with_equal,
    with_sha256,
)
from pipelines.results import Results
from pipelines.results_manifest import check_whole
from pipelines.tracking import MANIFEST_SHA256, ONNX_SHA256, connect, model_of, publish, sha256_of, summary
from pipelines.workspace import Workspace

if TYPE_CHECKING:
    from generalist.data import Dataset
    from generalist.export import Parity

_DECIDED = "decided"  # tag: the gates have spoken, and the aliases are set


class Registration(Record):
    """How a model is registered.

    Attributes:
        name, version: of the registered model.
        alias: champion or challenger; None for a version that has lost it to another.
        reasons: why it did not become champion; empty if it did.
        sha256: of the ONNX file.
        run_id: the MLflow run that made it.
        new: whether this call registered it.
        equal: whether the version has another file, with equal weights and protocol.
    """

    name: str
    version: int
    alias: str | None
    reasons: tuple[str, ...]
    sha256: str
    run_id: str
    new: bool
    equal: bool = False

    @property
    def sentence(self) -> str:
        """For people: which version it is, its alias, and why it is not champion."""
        known = "" if self.new else ", registered before"
        if self.equal:
            known = ", which has equal weights and an equal protocol, so nothing new is registered"
        because = f": {'; '.join(self.reasons)}" if self.reasons else ""
        return f"{self.name} version {self.version}, {self.alias or 'without an alias now'}{known}{because}"


def register(
    workspace: Workspace,
    results: Results,
    *,
    data: "Callable[[Config], Dataset]",
    reevaluate: Reevaluate | None = None,
    flow_run_id: str | None = None,
) -> Registration:
    """Register the ONNX file among the results, unless it is registered; the gates decide on its alias.

    A file that differs from a registered one in its origin alone is no new version: see `with_equal`. What is not
    registered is verified first, by `verification.check`.

    Args:
        workspace: whose MLflow.
        results: of a finished training.
        data: gives the data on which a configuration evaluates; asked for unless the file is registered.
        reevaluate: evaluates the champion again where the protocol has changed since.
        flow_run_id: of Prefect, kept as a tag.

    Raises:
        BadInput: the results are not whole, or not what their ONNX file says; the data can't be had; or MLflow can't
            be reached.
    """
    manifest = check_whole(results)
    config, sha256 = load(results.params), sha256_of(results.onnx)
    name, client = config.registry.name, connect(workspace)
    known = _version_of_file(client, name, sha256)
    if known is None or _DECIDED not in known.tags:
        from pipelines.registry.verification import check  # torch comes with it: seconds that no other door needs

        check(results, config, _data(data, config))
    run_id = publish(workspace, results)
    with workspace.one_at_a_time("registry"):
        same = _version_of_file(client, name, sha256)
        version = same or with_equal(workspace, results, name)
        if version is not None and _DECIDED in version.tags:
            registration = _registration(version, new=False)
            return (
                registration
                if same
                else registration.model_copy(update={"equal": True, "sha256": sha256, "run_id": run_id})
            )
        from generalist.export import Parity

        candidate, agreement = Evidence.read(results), results.read(Parity, results.parity)
        if check_whole(results) != manifest:
            raise BadInput(f"{results.folder} changed while it was registered: register it again")

        def decide(version: Version | None) -> tuple[int | None, tuple[str, ...]]:
            return _decide(client, config, candidate, agreement, version, reevaluate)

        against, reasons = decide(version)
        version = version or _create(client, results, name, run_id, sha256, manifest)
        if flow_run_id is not None:
            client.set_model_version_tag(name, str(version.version), "prefect_flow_run_id", flow_run_id)
        while not reasons and _number(with_alias(client, name, CHAMPION)) != against:
            against, reasons = decide(version)  # another project on this server was faster
        _record_decision(client, version, reasons)
        return _registration(described(client, name, str(version.version)), new=True)


def _data(data: "Callable[[Config], Dataset]", config: Config) -> "Dataset":
    try:
        return data(config)
    except BadInput as error:
        raise BadInput(
            f"a model is registered where its predictions can be compared with the images of its evaluation: {error}"
        ) from None


def _decide(
    client: MlflowClient,
    config: Config,
    candidate: Evidence,
    agreement: "Parity",
    version: Version | None,
    reevaluate: Reevaluate | None,
) -> tuple[int | None, tuple[str, ...]]:
    """Return the present champion, and the reasons against the model in its place; none if it is to be champion."""
    present = with_alias(client, config.registry.name, CHAMPION)
    if present is not None and version is not None and present.version == version.version:
        return present.version, ()  # a registration was killed after it: no version is worse than itself
    reasons = gates.alone(candidate.evaluation, agreement)
    if reasons or present is None:
        return _number(present), reasons
    try:
        champion = evidence_of(client, present, candidate, reevaluate)
    except BadInput as error:
        why = " ".join(str(error).split())
        reason = f"it can't be compared with the champion, version {present.version} ({why})"
        return present.version, (f"{reason}: promote it with `generalist promote` if it should be champion",)
    options = config.registry
    return present.version, gates.against(champion, candidate, by=options.criterion, level=float(options.significance))


def _number(version: Version | None) -> int | None:
    return None if version is None else version.version


def _version_of_file(client: MlflowClient, name: str, sha256: str) -> Version | None:
    """Return the one version of an ONNX file: of several that projects made at the same time, the lowest; others go."""
    same = [version for version in with_sha256(client, sha256) if version.name == name]
    if not same:
        return None
    first, *others = sorted(same, key=lambda version: (_DECIDED not in version.tags, version.version))
    for other in others:
        if not other.aliases and _DECIDED not in other.tags:
            drop(client, other)
    return first


def _create(client: MlflowClient, results: Results, name: str, run_id: str, sha256: str, manifest: str) -> Version:
    try:
        client.create_registered_model(name)
        describe(client, name, None)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    evaluation, model = results.read_evaluation(), model_of(client, run_id)
    tags = {
        ONNX_SHA256: sha256,
        MANIFEST_SHA256: manifest,
        "criterion": evaluation.criterion,
        "criterion_value": f"{evaluation.chosen.validation.by(evaluation.criterion):.6f}",
        PROTOCOL: evaluation.protocol.digest(),
        "mlflow_run_id": run_id,
    }
    version = client.create_model_version(
        name,
        model.artifact_location,
        run_id=run_id,
        tags=tags,
        description=summary(evaluation),
        model_id=model.model_id,
    )
    kept = _version_of_file(client, name, sha256)  # another project may have made one since
    if kept is not None and kept.version != int(version.version):
        return kept
    # As MLflow's own registration does: the model's page shows its versions.
    shown = [{"name": name, "version": version.version}]
    client.set_logged_model_tags(model.model_id, {"mlflow.modelVersions": json.dumps(shown)})
    return described(client, name, str(version.version))


def _record_decision(client: MlflowClient, version: Version, reasons: tuple[str, ...]) -> None:
    """Set the alias; the tag that says so comes last, so a registration that was killed is taken up again."""
    name, number = version.name, str(version.version)
    if reasons:
        client.set_model_version_tag(name, number, "reasons", "\n".join(reasons))
        client.set_registered_model_alias(name, CHALLENGER, number)
    else:
        set_champion(client, version)
        if "reasons" in version.tags:  # of a registration that was killed
            client.delete_model_version_tag(name, number, "reasons")
    client.set_model_version_tag(name, number, _DECIDED, CHALLENGER if reasons else CHAMPION)


def _registration(version: Version, *, new: bool) -> Registration:
    alias = next((alias for alias in (CHAMPION, CHALLENGER) if alias in version.aliases), None)
    reasons = () if alias == CHAMPION else tuple(version.tags.get("reasons", "").splitlines())
    return Registration(
        name=version.name,
        version=version.version,
        alias=alias,
        reasons=reasons,
        sha256=version.sha256,
        run_id=version.run_id,
        new=new,
    )
