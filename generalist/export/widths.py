"""The files of a slimmable model: one ONNX file a width, the others beside the one of the headline. No torch here."""

from pathlib import Path

from generalist.errors import BadInput
from generalist.export.integrity import verify


def width_file(model: Path, width: float) -> Path:
    """Return the file of a further width, beside that of the headline."""
    return model.with_name(f"{model.stem}-width-{width:g}.onnx")


def width_files(model: Path) -> list[Path]:
    """Return those files that are there."""
    return sorted(model.parent.glob(f"{model.stem}-width-*.onnx"))


def model_at_width(model: Path, width: float) -> Path:
    """Return the file that is of this width: the model's own, or one beside it that was made of the same weights.

    Raises:
        BadInput: a file is missing or changed, the model has one width, or none is of this one.
    """
    told = verify(model)
    if "width" not in told:
        raise BadInput(f"{model} is of a network that has one width: leave --width out")
    if float(told["width"]) == width:
        return model
    file = width_file(model, width)
    if not file.exists():
        had = [f"{float(told['width']):g}", *(other.stem.rpartition("-")[2] for other in width_files(model))]
        raise BadInput(f"there is no {file}: the widths that are here are {', '.join(had)}; give --width one of these")
    if verify(file).get("weights_digest") != told.get("weights_digest"):
        raise BadInput(f"{file} was made of other weights than {model}: make both again with `dvc repro`")
    return file
