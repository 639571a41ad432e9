"""Weights of an earlier training to start from."""

from pathlib import Path

from generalist import engine
from generalist.config import Config
from generalist.errors import BadInput
from generalist.store import read_tensors
from generalist.store.files import refuse_foreign
from generalist.tensors import ImageShape, Weights


def given_weights(config: Config, shape: ImageShape, root: Path) -> Weights | None:
    """Return the weights of `training.initial`, which is below `root` where it is relative; None where none are named.

    Raises:
        BadInput: the file is missing, damaged or of another network.
    """
    if config.training.initial is None:
        return None
    path = root / config.training.initial
    mend = "name weights of an earlier training in training.initial, or null"
    refuse_foreign(path, mend=mend)
    found = read_tensors(path, mend=mend).tensors
    expected = engine.initial_weights(config.model, shape, config.seed)
    for name in sorted({*found, *expected}):
        if name not in found or name not in expected or found[name].shape != expected[name].shape:
            raise BadInput(
                f"the weights {path} are not of this network ({name} differs): name others in training.initial, or set"
                " model to what they were trained as"
            )
    return {name: found[name].to(own.dtype) for name, own in expected.items()}
