"""Weights of an earlier training to start from."""

from pathlib import Path

from generalist import engine
from generalist.config import Config
from generalist.errors import BadInput
from generalist.store import read_tensors
from generalist.store.files import refuse_foreign
from generalist.tensors import ImageShape, Weights


def load_initial_weights(config: Config, shape: ImageShape, root: Path) -> Weights | None:
    """Return the weights of `training.initial_weights` (below `root` if relative); None where none are named.

    Raises:
        BadInput: the file is missing, damaged or of another network.
    """
    if config.training.initial_weights is None:
        return None
    path = root / config.training.initial_weights
    mend = "name weights of an earlier training in training.initial_weights, or null"
    refuse_foreign(path, mend=mend)
    weights = read_tensors(path, mend=mend).tensors
    expected = engine.initial_weights(config.model, shape, config.seed)
    for name in sorted({*weights, *expected}):
        if name not in weights or name not in expected or weights[name].shape != expected[name].shape:
            raise BadInput(
                f"the weights {path} are not of this network ({name} differs): name others in training.initial_weights,"
                f" or set"
                " model to what they were trained as"
            )
    return {name: weights[name].to(tensor.dtype) for name, tensor in expected.items()}
