"""Commands around the exported model: predict, trace, download, promote, rollback."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import typer

from generalist.errors import BadInput
from generalist.masking import masked_address
from generalist.untrusted import file_sha256
from pipelines.cli import options
from pipelines.cli.shell import printing, say, tell

if TYPE_CHECKING:
    from generalist.export import Prediction, Predictor
    from pipelines.workspace import Workspace

Model = Annotated[
    Path | None, typer.Option("--model", metavar="FILE", help="The ONNX file; by default outputs/model.onnx.")
]
Device = Literal["cpu", "cuda"]


def predict(
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGE...", help="Image files, or folders of them.", show_default=False)
    ],
    model: Model = None,
    top: Annotated[int, typer.Option("--top", metavar="K", min=1, help="How many classes of each image.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, with all probabilities.")] = False,
    device: Annotated[Device, typer.Option("--device", help="Where ONNX Runtime computes.")] = "cpu",
    condition: options.Lambda = None,
    width: options.Width = None,
) -> None:
    """Predict the classes of images, with probabilities.

    Images that can't be read are named on standard error, the others are predicted, and the exit code is 1.
    """
    from generalist.export import Predictor, model_at_width

    file = model or _default_model()
    file = file if width is None else model_at_width(file, width)
    predictor = Predictor(file, on=device, condition=condition)
    unreadable = False
    for said in predictor.predict_each(images):
        if isinstance(said, BadInput):
            tell(str(said))
            unreadable = True
        else:
            if as_json:
                with printing():
                    typer.echo(_json(said, predictor))
            else:
                say(_text(said, predictor.class_names, top))
    if unreadable:
        raise typer.Exit(1)


def trace(
    model: Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="An exported file.", show_default=False)],
) -> None:
    """Show where a model comes from, if it is unchanged.

    Its lineage, and the MLflow runs and registered versions of this very file. Fails if a byte of it differs, or if
    no run or version here has the file: its seals prove that it is whole, not who made it.
    """
    from generalist.export import verify
    from pipelines.cli.tables import lineage, show
    from pipelines.workspace import Workspace

    metadata = verify(model)
    origin = _origin(Workspace.find(), model)
    if not origin.known:
        say(f"nothing here knows this file, and its seals don't say who made it ({origin.asked}); it says of itself:")
    show(lineage(metadata, sha256=origin.sha256))
    for line in origin.known:
        say(line)
    if not origin.known:
        raise typer.Exit(1)


def download(
    alias: options.Alias = "champion",
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Where to; a folder gets model.onnx.")
    ] = Path("model.onnx"),
    name: options.Name = None,
) -> None:
    """Copy a registered model's ONNX file here."""
    from pipelines import registry
    from pipelines.workspace import Workspace

    workspace = Workspace.find()
    path = registry.download(workspace, output, name=options.registered_name(workspace, name), reference=alias)
    say(f"{path}\nits origin: generalist trace {path}")


def promote(
    version: Annotated[int, typer.Argument(metavar="VERSION", min=1, help="Its number.", show_default=False)],
    reason: Annotated[str, typer.Option("--reason", help="Why; kept as a tag.")] = "by hand",
    name: options.Name = None,
) -> None:
    """Make a version the champion, even if the gates refused it."""
    from pipelines import registry
    from pipelines.workspace import Workspace

    workspace = Workspace.find()
    name = options.registered_name(workspace, name)
    say(str(registry.promote(workspace, version, name=name, reason=reason)))


def rollback(name: options.Name = None) -> None:
    """Make the former champion the champion again."""
    from pipelines import registry
    from pipelines.workspace import Workspace

    workspace = Workspace.find()
    say(str(registry.rollback(workspace, name=options.registered_name(workspace, name))))


def _default_model() -> Path:
    from pipelines.results import Results
    from pipelines.workspace import Workspace

    path = Results(Workspace.find().outputs).onnx
    if not path.exists():
        raise BadInput(f"there is no {path}: make it with `dvc repro`, or name another model with --model")
    return path


def _json(prediction: "Prediction", predictor: "Predictor") -> str:
    fields = {
        "file": str(prediction.file),
        "class": prediction.class_name,
        "probabilities": dict(zip(predictor.class_names, prediction.probabilities, strict=True)),
        "provider": predictor.provider,
    }
    return json.dumps(fields)  # in ASCII: escapes are those of JSON


def _text(prediction: "Prediction", classes: tuple[str, ...], top: int) -> str:
    ranked = sorted(zip(prediction.probabilities, classes, strict=True), key=lambda pair: -pair[0])
    shown = ", ".join(f"{name} {100 * probability:.1f} %" for probability, name in ranked[:top])
    return f"{prediction.shown}: {shown}"


class _Origin(NamedTuple):
    """The file's SHA-256 (hex), a line for each run and version that knows it, and who was asked."""

    sha256: str
    known: list[str]
    asked: str


def _origin(workspace: "Workspace", model: Path) -> _Origin:
    database = workspace.tracking_database
    if database is not None and not database.exists():  # asking must not make one
        none = f"no MLflow database at {database}; set MLFLOW_TRACKING_URI to ask another"
        return _Origin(file_sha256(model), [], none)
    from pipelines import registry, tracking

    sha256 = tracking.sha256_of(model)
    listing = registry.find(workspace, sha256)
    lines = [f"MLflow run: {run}" for run in listing.runs]
    for version in listing.versions:
        aliases = f", {' and '.join(version.aliases)}" if version.aliases else ""
        flow_run = version.tags.get("prefect_flow_run_id")
        made = f", Prefect flow run {flow_run}" if flow_run else ""
        lines.append(f"registered: {version.name} version {version.version}{aliases}{made}")
    return _Origin(sha256, lines, f"MLflow at {masked_address(workspace.tracking_uri)}: no run, no version")
