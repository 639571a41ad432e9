"""State files whose facts somebody changed, with a checksum that agrees."""

import hashlib
import json
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save

from generalist.store import tensors_digest

FACTS = {
    "null": "null",
    "emptied": "{}",
    "a list": "[]",
    "a number": "7",
    "nested": "[" * 5000 + "]" * 5000,
    "nested below": '{"epoch": ' + "[" * 300 + "]" * 300 + "}",
    "digits": '{"epoch": ' + "9" * 5000 + "}",
    "text": '{"epoch": "x", "rates": "x", "histories": "x", "seconds": "x", "natural": "x", "robust": "x"}',
    "nulls": '{"epoch": null, "rates": [null], "histories": [null], "seconds": null, "natural": null}',
    "half a pair": '{"epoch": "\\ud800"}',
}
"""Facts as JSON by name; none fit any kind of state."""


def reseal(path: Path, facts: str, *, keep: bool = True) -> None:
    """Give a state file other facts, as JSON, and a checksum that agrees; its tensors stay, or go."""
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()} if keep else {}  # noqa: SIM118
    try:
        told = json.dumps(json.loads(facts), sort_keys=True)
    except (ValueError, RecursionError):
        told = facts
    digest = hashlib.sha256(f"{tensors_digest(tensors)} {told}".encode(errors="replace")).hexdigest()
    path.write_bytes(save(tensors, metadata={"generalist": f'{{"digest": "{digest}", "facts": {facts}}}'}))
