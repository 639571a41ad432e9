"""What is known of the present champion. What comes from MLflow's artifacts is compared with the database first.

A tag of the version has the digest of its results' manifest, and that has those of its files. What a later evaluation
by another protocol found is kept among the artifacts, too, its digests in a tag of its own.
"""

import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from generalist.errors import BadInput
from generalist.untrusted import printable
from pipelines.registry import gates
from pipelines.registry.gates import Evidence
from pipelines.registry.model_versions import Version
from pipelines.results import Results
from pipelines.results_manifest import ResultsManifest
from pipelines.tracking import MANIFEST_SHA256, sha256_of

Reevaluate = Callable[[Results], Results]
"""Evaluates the champion, whose configuration, weights and evaluation are given, by the present protocol.

It returns a folder with at least `evaluation.json` and `verdicts.npz`; `chosen.validation` is measured anew, too. It
raises BadInput where that is impossible, as when the data have other classes.
"""

_EVIDENCE = ("evaluation.json", "verdicts.npz")
_MODEL = ("params.yaml", "global.safetensors")
_AGAIN = "reevaluated"  # folder among a run's artifacts: evaluations by later protocols, by their digests


def evidence_of(client: MlflowClient, present: Version, candidate: Evidence, reevaluate: Reevaluate | None) -> Evidence:
    """Return the champion's evidence, by the candidate's protocol if it can be had.

    Raises:
        BadInput: what MLflow keeps of it is gone or was changed, or it can't be evaluated again.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        digests = _digests(client, present, folder)
        then = _fetch(client, present, "", _EVIDENCE, digests, folder / "then")
        evidence = _read(then, present)
        if gates.same_protocol(candidate.evaluation, evidence.evaluation) is None:
            return evidence
        place = f"{_AGAIN}/{candidate.evaluation.protocol.digest()}"
        known = dict(zip(_EVIDENCE, present.tags.get(_tag(place), "").split(), strict=False))
        if known:  # it was done for another candidate
            try:
                return _read(_fetch(client, present, place, _EVIDENCE, known, folder / "again"), present)
            except BadInput:
                if reevaluate is None:
                    raise
        if reevaluate is None:
            return evidence
        _fetch(client, present, "", _MODEL, digests, then.folder)
        again = _evaluate_again(reevaluate, then)
        evidence = Evidence.read(again)
        for name in _EVIDENCE:
            client.log_artifact(present.run_id, str(again.folder / name), place)
        tag_value = " ".join(sha256_of(again.folder / name) for name in _EVIDENCE)
        client.set_model_version_tag(present.name, str(present.version), _tag(place), tag_value)
        return evidence


def _evaluate_again(reevaluate: Reevaluate, older: Results) -> Results:
    try:
        return reevaluate(older)
    except BadInput:
        raise
    except Exception as error:  # in any case it must neither block later models nor let this one win
        message = printable(" ".join(str(error).split()))[:200]
        raise BadInput(f"evaluating it again fails with {type(error).__name__}: {message}") from error


def _digests(client: MlflowClient, present: Version, folder: Path) -> Mapping[str, str]:
    """Return the SHA-256 (hex) of what the run of a version keeps, by name."""
    name, expected = Results(folder).manifest.name, present.tags.get(MANIFEST_SHA256)
    if expected is None:
        raise BadInput("it was registered by an older version, which noted no digests of its evaluation")
    kept = _fetch(client, present, "", (name,), {name: expected}, folder / "manifest")
    return ResultsManifest.read(kept.manifest).files


def _fetch(
    client: MlflowClient, present: Version, place: str, names: Iterable[str], digests: Mapping[str, str], folder: Path
) -> Results:
    """Return files that a version's run keeps at a place among its artifacts, fetched into a folder and compared."""
    folder.mkdir(exist_ok=True)
    for name in names:
        try:
            kept = client.download_artifacts(present.run_id, f"{place}/{name}" if place else name, str(folder))
            Path(kept).replace(folder / name)  # some stores keep the place's folders
        except (MlflowException, OSError):
            raise BadInput(f"the files of its run {present.run_id} are gone") from None
        if sha256_of(folder / name) != digests.get(name):
            raise BadInput(f"{name} of its run {present.run_id} is damaged, or was changed after it was registered")
    return Results(folder)


def _read(kept: Results, present: Version) -> Evidence:
    try:
        return Evidence.read(kept)
    except BadInput:  # its sentence names a temporary folder
        raise BadInput(f"the evaluation that its run {present.run_id} keeps can't be read by this version") from None


def _tag(place: str) -> str:
    return place.replace("/", "_")
