"""What becomes of a trained model: the section of its file, and that of its registry."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from generalist.config.naming import wrong_name
from generalist.config.quantity import Quantity
from generalist.config.section import Section
from generalist.config.sections import Fraction, Positive


def _checked_name(name: str) -> str:
    if wrong := wrong_name(name):
        raise ValueError(wrong)
    return name


class ExportOptions(Section):
    """The ONNX file."""

    opset: int = Field(18, ge=18, le=23, description="ONNX operator set")
    tolerance: Positive = Field(
        Quantity("1e-4"),
        description="largest difference of a logit between torch and ONNX Runtime, relative to the largest logit",
    )
    parity: Literal["cpu", "cuda"] = Field(
        "cpu", description="where ONNX Runtime computes when it is compared with torch; cuda needs onnxruntime-gpu"
    )


class RegistryOptions(Section):
    """Under which name, and by which measure, a model may become champion."""

    name: Annotated[str, AfterValidator(_checked_name)] = "generalist"
    criterion: Literal["harmonic", "natural", "robust"] = Field(
        "harmonic", description="on the validation split: harmonic mean of natural and robust accuracy, or one of them"
    )
    significance: Fraction = Field(
        Quantity("0.05"), description="level of the paired test by which a champion must not be worse on the test split"
    )
