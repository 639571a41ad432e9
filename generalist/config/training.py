"""The sections of `params.yaml` that say how experts are trained and computed, and what becomes of the model."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag

from generalist.config.bounds import Count, Fraction, Positive
from generalist.config.names import wrong_name
from generalist.config.quantity import Quantity
from generalist.config.section import Section


class Rollback(Section):
    """What to do about a NaN or infinite loss: go back to the start of the epoch with a smaller learning rate."""

    factor: Fraction = Field(Quantity("0.5"), description="on the learning rate, from that epoch on")
    retries: Count = Field(3, le=1000, description="how often in one epoch, before the training stops after all")


Divergence = Annotated[
    Annotated[Literal["stop"], Tag("stop")] | Annotated[Rollback, Tag("go_back")],
    Discriminator(lambda written: "go_back" if isinstance(written, Mapping | Rollback) else "stop"),
]


class TrainingOptions(Section):
    """What all experts share."""

    epochs: Count = Field(le=100_000, description="passes over the training images")
    batch_size: Count = Field(
        le=1_000_000,
        description="images per optimizer step; the last batch of an epoch may be smaller, or larger by one",
    )
    threads: Count = Field(
        1, le=1024, description="intra-op threads per expert; the number changes the bits of the result"
    )
    checkpoint_epochs: Count = Field(
        5, le=100_000, description="epochs between stored states; a learner that is not mixed is chosen among these"
    )
    checkpoint_minutes: Positive = Field(
        Quantity(10), description="minutes after which a state is stored inside an epoch, too"
    )
    initial_weights: str | None = Field(
        None, description="weights to start from, a .safetensors file of an earlier training; null for new ones"
    )
    own_initial_weights: bool = Field(
        False, description="new weights of its own for each expert, as peers want them; false: one state, to be mixed"
    )
    divergence: Divergence = Field(
        "stop", description="at a NaN or infinite loss: stop, or go back as in {factor: 0.5, retries: 3}"
    )
    processes: Literal["one", "experts"] = Field(
        "one",
        description="one for all experts, or one for each, which then has a GPU of its own where there are several",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "cpu", description="where experts are trained and evaluated; auto: a CUDA GPU where there is one, else the CPU"
    )
    images: Literal["auto", "resident", "mapped"] = Field(
        "auto",
        description="training images on the device, or read from the disk batch by batch (mapped); auto: on the device"
        " where they take at most a quarter of its free memory; without effect on bits",
    )


class EngineOptions(Section):
    """How a training step is computed; each choice changes the last bits of the result."""

    eager: bool = Field(False, description="disables all optimised code paths, for debugging")
    attack_precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="arithmetic in which training images are attacked"
    )
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="arithmetic of the whole step; weights, averages and evaluation stay float32"
    )
    tf32: bool = Field(
        True, description="on GPUs, float32 arithmetic of training steps may use TF32; verdicts and parity never do"
    )
    compile: Literal["auto"] | bool = Field(
        "auto",
        description="torch.compile for attacks on training images; auto: on GPUs, for convolutions of 64 channels and"
        " more, where Triton and a C compiler are there; never where it is plain or several processes share a batch",
    )


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
