"""The state of an unfinished evaluation, so that one that was killed goes on where it was."""

import hashlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from generalist.attacks.fixed_batches import logits_of, tile_size
from generalist.attacks.losses import Network
from generalist.attacks.members import member_module
from generalist.code_digest import evaluation_code
from generalist.errors import BadInput
from generalist.models import Classifier
from generalist.store import StateLost, Stored, read_tensors, tensors_digest, write_tensors
from generalist.tensors import Images, Labels, Logits
from generalist.threats import Threat

EVERY = 10.0
"""Seconds between two writes at least: a state is as large as the images."""
_MEND = "delete it, and the evaluation begins anew"


class StateFile:
    """A file that belongs to one evaluation: model, images, threat, attacks, seed and code."""

    def __init__(self, path: Path, identity: Mapping[str, str], *, every: float | None = None) -> None:
        self.path, self.identity, self.every = path, dict(identity), EVERY if every is None else every
        self.written = time.monotonic()

    def read(self) -> Stored | None:
        """Return what was written, or None where nothing was.

        Raises:
            StateLost: the file is damaged, or belongs to another evaluation.
        """
        if not self.path.exists():
            return None
        try:
            stored = read_tensors(self.path, mend=_MEND)
        except BadInput as error:
            raise StateLost(str(error)) from None
        theirs = stored.facts.get("identity")
        if not isinstance(theirs, dict):  # weights, for instance: nothing to delete
            raise StateLost(f"{self.path} holds no state of an evaluation: name another file")
        others = [name for name, digest in self.identity.items() if theirs.get(name) != digest]
        if {"threat", "set of attacks"} & {*others}:  # whose code is another one, of course
            others = [name for name in others if name != "code"]
        if others:
            raise StateLost(
                f"the state {self.path} belongs to an evaluation with another {' and another '.join(others)}: "
                "delete it to begin anew, or name another file"
            )
        return stored

    def damaged(self) -> StateLost:
        """Return the error for content that is not that of a state."""
        return StateLost(f"the state file {self.path} is damaged (it does not hold what it should): {_MEND}")

    def write(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any], *, now: bool = False) -> None:
        """Write a state, unless one was written a moment ago.

        Raises:
            BadInput: the file can't be written.
        """
        if now or time.monotonic() - self.written >= self.every:
            write_tensors(self.path, tensors, {**facts, "identity": self.identity})
            self.written = time.monotonic()


def identity(
    model: nn.Module | Network,
    views: Mapping[str, Network],
    images: Images,
    labels: Labels,
    logits: Logits,
    threat: Threat,
    attacks: Sequence[str],
    settings: str,
    seed: int,
) -> dict[str, str]:
    """Return what an evaluation's state belongs to, by name.

    Args:
        model: known by its parameters and buffers, and by its answers.
        views: known by their answers to the first images.
        images: all of them.
        labels: of the same.
        logits: the model's answers to the images.
        threat: the ball.
        attacks: by name.
        settings: of the attacks.
        seed: of all random numbers.
    """
    plugins = {*threat.modules, *map(member_module, attacks)}
    plugins |= {type(model.head).__module__} if isinstance(model, Classifier) else set()  # whose losses are not answers
    answers = {"": logits}
    answers |= {name: logits_of(view, images[: tile_size(images.device)]) for name, view in views.items()}
    weights_digest = tensors_digest(model.state_dict()) if isinstance(model, nn.Module) else ""
    return {
        "model": hashlib.sha256((weights_digest + tensors_digest(answers)).encode()).hexdigest(),
        "data": tensors_digest({"images": images, "labels": labels}),
        "threat": threat.identity,
        "set of attacks": settings,
        "seed": str(seed),
        "code": f"{evaluation_code(plugins)} {torch.__version__} {images.device.type}",
    }
