"""A finished model to the registry: once for equal weights and protocol, and champion only through all gates."""

import json
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from generalist.config import Config, load
from generalist.errors import BadInput
from generalist.export import Parity
from generalist.records import Record
from pipelines.registry import gates
from pipelines.registry.describing import describe
from pipelines.registry.gates import Evidence
from pipelines.registry.versions import (
    CHALLENGER,
    CHAMPION,
    PROTOCOL,
    Version,
    crown,
    described,
    with_alias,
    with_equal,
    with_sha256,
)
from pipelines.results import Results
from pipelines.tracking import ONNX_SHA256, connect, model_of, publish, sha256_of, summary
from pipelines.workspace import Workspace

Reevaluate = Callable[[Results], Results]
"""Evaluates the champion, whose configuration, weights and evaluation are given, by the present protocol.

It returns a folder with at least `evaluation.json` and `verdicts.npz`; `chosen.validation` is measured anew, too. It
raises BadInput where that is impossible, as when the data have other classes.
"""

_DECIDED = "decided"  # tag: the gates have spoken, and the aliases are set
_EVIDENCE = ("evaluation.json", "verdicts.npz")
_MODEL = ("params.yaml", "global.safetensors")
_AGAIN = "reevaluated"  # folder among a run's artifacts: evaluations by later protocols, by their digests


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
    reevaluate: Reevaluate | None = None,
    flow_run_id: str | None = None,
) -> Registration:
    """Register the ONNX file among the results, unless it is registered; the gates decide on its alias.

    A file that differs from a registered one in its origin alone is no new version: see `with_equal`.

    Args:
        workspace: whose MLflow.
        results: of a finished training.
        reevaluate: evaluates the champion again where the protocol has changed since.
        flow_run_id: of Prefect, kept as a tag.

    Raises:
        BadInput: a file is missing or damaged, or MLflow can't be reached.
    """
    config, sha256 = load(results.params), sha256_of(results.onnx)
    name = config.registry.name
    run_id = publish(workspace, results)
    client = connect(workspace)
    with workspace.one_at_a_time("registry"):
        same = [version for version in with_sha256(client, sha256) if version.name == name]
        version = same[0] if same else with_equal(workspace, results, name)
        if version is not None and _DECIDED in version.tags:
            known = _registration(version, new=False)
            return known if same else known.model_copy(update={"equal": True, "sha256": sha256, "run_id": run_id})
        reasons = _decide(client, results, config, reevaluate)
        version = version or _create(client, results, name, run_id, sha256)
        if flow_run_id is not None:
            client.set_model_version_tag(name, str(version.version), "prefect_flow_run_id", flow_run_id)
        _settle(client, version, reasons)
        return _registration(described(client, name, str(version.version)), new=True)


def _decide(client: MlflowClient, results: Results, config: Config, reevaluate: Reevaluate | None) -> tuple[str, ...]:
    """The reasons against the model as champion; none if it is to be champion."""
    candidate = Evidence.read(results)
    reasons = gates.alone(candidate.evaluation, _parity(results))
    present = with_alias(client, config.registry.name, CHAMPION)
    if reasons or present is None:
        return reasons
    try:
        champion = _champion(client, present, candidate, reevaluate)
    except BadInput as error:
        why = " ".join(str(error).split())
        found = f"it can't be compared with the champion, version {present.version} ({why})"
        return (f"{found}: promote it with `generalist promote` if it should be champion",)
    options = config.registry
    return gates.against(champion, candidate, by=options.criterion, level=float(options.significance))


def _champion(client: MlflowClient, present: Version, candidate: Evidence, reevaluate: Reevaluate | None) -> Evidence:
    """The champion's evidence, by the candidate's protocol if it can be had."""
    run = present.run_id
    with tempfile.TemporaryDirectory() as folder:
        then = _fetched(client, run, "", _EVIDENCE, Path(folder) / "then")
        evidence = _evidence(then, run)
        if gates.same_protocol(candidate.evaluation, evidence.evaluation) is None:
            return evidence
        place = f"{_AGAIN}/{candidate.evaluation.protocol.digest()}"
        if len(client.list_artifacts(run, place)) == len(_EVIDENCE):  # it was done for another candidate
            return _evidence(_fetched(client, run, place, _EVIDENCE, Path(folder) / "again"), run)
        if reevaluate is None:
            return evidence
        again = reevaluate(_fetched(client, run, "", _MODEL, then.folder))
        evidence = Evidence.read(again)
        for name in _EVIDENCE:
            client.log_artifact(run, str(again.folder / name), place)
        return evidence


def _fetched(client: MlflowClient, run_id: str, place: str, names: Iterable[str], folder: Path) -> Results:
    """Files that a run keeps at a place among its artifacts, fetched into a folder."""
    folder.mkdir(exist_ok=True)
    try:
        for name in names:
            path = Path(client.download_artifacts(run_id, f"{place}/{name}" if place else name, str(folder)))
            path.replace(folder / name)  # some stores keep the place's folders
    except (MlflowException, OSError):
        raise BadInput(f"the files of its run {run_id} are gone") from None
    return Results(folder)


def _evidence(kept: Results, run_id: str) -> Evidence:
    try:
        return Evidence.read(kept)
    except BadInput:  # its sentence names a temporary folder
        raise BadInput(f"the evaluation that its run {run_id} keeps is damaged") from None


def _parity(results: Results) -> Parity:
    try:
        return Parity.read(results.parity)
    except (OSError, ValueError):
        raise BadInput(f"{results.parity} is missing or damaged: make it with `dvc repro`") from None


def _create(client: MlflowClient, results: Results, name: str, run_id: str, sha256: str) -> Version:
    try:
        client.create_registered_model(name)
        describe(client, name, None)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    evaluation, model = results.read_evaluation(), model_of(client, run_id)
    tags = {
        ONNX_SHA256: sha256,
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
    # As MLflow's own registration does: the model's page shows its versions.
    shown = [{"name": name, "version": version.version}]
    client.set_logged_model_tags(model.model_id, {"mlflow.modelVersions": json.dumps(shown)})
    return described(client, name, str(version.version))


def _settle(client: MlflowClient, version: Version, reasons: tuple[str, ...]) -> None:
    """Set the alias; the tag that says so comes last, so a registration that was killed is taken up again."""
    name, number = version.name, str(version.version)
    if reasons:
        client.set_model_version_tag(name, number, "reasons", "\n".join(reasons))
        client.set_registered_model_alias(name, CHALLENGER, number)
    else:
        crown(client, version)
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
