"""Deliberately bad inputs for every reader of what comes from outside, and what each reader makes of them."""

import io
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from generalist import engine
from generalist.attacks.result_files import read_verdicts
from generalist.config import load as load_config
from generalist.data import load as load_data
from generalist.data.array_files import map_npy, read_npz
from generalist.data.decoding import content, decode
from generalist.data.manifest import MANIFEST
from generalist.errors import BadInput
from generalist.export import read_classifier, write_weights
from generalist.export.integrity import from_anywhere, verify, with_digests
from generalist.store import Remote, Store
from generalist.threats import Threat
from generalist.training.speeds import Speeds
from pipelines.results import Results
from tests.edited import ARRAYS_EDITED, MANIFESTS_EDITED
from tests.onnx_models import linear
from tests.resealed import FACTS, reseal
from tests.training_factory import PARAMS, digits, small

Edit = tuple[int, float, bytes]
"""Kind, place as a share of the file, and other bytes."""
TOKENS = (
    b"",
    b"\x00",
    b"\xff" * 8,
    b"[" * 2000,
    b"{" * 2000,
    b"9" * 5000,
    b"NaN",
    b"null",
    b'"\\ud800"',
    b"&a *a",
    b"-1",
)
KINDS = 5


def edited(whole: bytes, edits: Sequence[Edit]) -> bytes:
    """Bytes after edits: cut, overwritten, inserted, taken out, doubled."""
    for kind, place, token in edits:
        at = int(place * len(whole))
        whole = (
            whole[:at],
            whole[:at] + token + whole[at + len(token) :],
            whole[:at] + token + whole[at:],
            whole[:at] + whole[at + 1 + len(token) :],
            whole[:at] + whole[at // 2 :],
        )[kind % KINDS]
    return whole[: 2**22]


@dataclass(frozen=True)
class Reader:
    """A reader, a whole file for it, and how it is asked; `path` is where the file belongs."""

    path: Path
    whole: bytes
    read: Callable[[Path], object]

    def tried(self, given: bytes) -> bool:
        """Whether a file of these bytes is taken; False where it is refused in one sentence.

        Raises:
            AssertionError: it is refused in several lines.
        """
        if self.path.is_dir() and not self.path.is_symlink():
            self.path.rmdir()
        self.path.unlink(missing_ok=True)
        self.path.write_bytes(given)
        return self.asked()

    def asked(self) -> bool:
        """Return whether what lies there is taken, in the same way."""
        return taken(lambda: self.read(self.path))


def taken(ask: Callable[[], object]) -> bool:
    """Whether something is taken; False where it is refused in one sentence."""
    try:
        ask()
    except (BadInput, FileNotFoundError) as error:  # readers of arrays leave missing files to whoever asks
        assert isinstance(error, BadInput) or error.strerror  # noqa: PT017
        return False
    return True


def readers(folder: Path) -> dict[str, Reader]:
    """All readers by name, with files in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    data = digits(folder / "data")
    config = small()
    arrays, archive, picture = io.BytesIO(), io.BytesIO(), io.BytesIO()
    np.save(arrays, np.arange(12.0).reshape(3, 4))
    np.savez_compressed(archive, images=np.zeros((2, 1, 4, 4), "uint8"), labels=np.arange(2))
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(picture, "PNG")
    weights = engine.initial_weights(config.model, data.shape, 0)
    write_weights(folder / "global.safetensors", weights, model=config.model, shape=data.shape, data="")
    store = Store(folder / "store")
    Speeds(store, "").note("", 1.0)
    (entry,) = store.entries()
    assert entry.path is not None
    jpeg = io.BytesIO()
    Image.open(io.BytesIO(picture.getvalue())).save(jpeg, "JPEG")
    results = Results(folder / "results")
    results.folder.mkdir()
    evaluation = json.dumps({"protocol": {}, "deployed": "global", "learners": {"global": {}}, "seconds": 1}).encode()

    def image(path: Path) -> object:
        return decode(content(path), size=(8, 8), grayscale=True, path=path)

    return {
        "YAML": Reader(folder / "params.yaml", PARAMS.read_bytes(), load_config),
        "manifest": Reader(
            folder / "data" / MANIFEST, (folder / "data" / MANIFEST).read_bytes(), lambda path: load_data(path.parent)
        ),
        "npy": Reader(folder / "a.npy", arrays.getvalue(), map_npy),
        "npz": Reader(folder / "a.npz", archive.getvalue(), lambda path: read_npz(path, ("images", "labels"))),
        "verdicts": Reader(folder / "v.npz", archive.getvalue(), read_verdicts),
        "state": Reader(entry.path, entry.path.read_bytes(), lambda _: store.load(entry.key)),
        "weights": Reader(
            folder / "global.safetensors",
            (folder / "global.safetensors").read_bytes(),
            lambda path: read_classifier(path, on=torch.device("cpu")),
        ),
        "ONNX": Reader(folder / "net.onnx", linear().SerializeToString(), from_anywhere),
        "sealed ONNX": Reader(folder / "ours.onnx", with_digests(linear(), {"learner": "global"}), verify),
        "PNG": Reader(folder / "a.png", picture.getvalue(), image),
        "JPEG": Reader(folder / "a.jpg", jpeg.getvalue(), image),
        "evaluation": Reader(results.evaluation, evaluation, lambda _: results.read_evaluation()),
    }


def special(reader: Reader) -> Iterator[tuple[str, Callable[[], bool]]]:
    """Yield what is no regular file where one is expected."""
    kinds: dict[str, Callable[[Path], object]] = {
        "FIFO": os.mkfifo,
        "/dev/zero": lambda path: path.symlink_to("/dev/zero"),
        "folder": Path.mkdir,
        "missing": lambda _: None,
        "a link to itself": lambda path: path.symlink_to(path),
        "empty": Path.touch,
    }
    for name, make in kinds.items():

        def ask(make: Callable[[Path], object] = make) -> bool:
            if reader.path.is_dir() and not reader.path.is_symlink():
                reader.path.rmdir()
            reader.path.unlink(missing_ok=True)
            make(reader.path)
            return reader.asked()

        yield name, ask


def deliberate(folder: Path) -> Iterator[tuple[str, Callable[[], bool]]]:
    """Single inputs, each of which somebody thought of."""
    digits(folder / "whole")
    for name, (edit, _) in (ARRAYS_EDITED | MANIFESTS_EDITED).items():

        def prepared(edit: Callable[[Path], None] = edit) -> bool:
            shutil.rmtree(folder / "own", ignore_errors=True)
            shutil.copytree(folder / "whole", folder / "own")
            edit(folder / "own")
            return taken(lambda: load_data(folder / "own"))

        yield f"prepared data: {name}", prepared
    for name, facts in FACTS.items():

        def state(facts: str = facts) -> bool:
            store = Store(folder / "states")
            store.save("ab" * 32, "state", {}, {})
            reseal(store.path("ab" * 32), facts)
            return taken(lambda: store.load("ab" * 32))

        yield f"facts: {name}", state
    for override in OVERRIDES:
        yield f"override: {override[:40]}", lambda own=override: taken(lambda: load_config(PARAMS, overrides=[own]))  # type: ignore[misc]
    for threat in THREATS:
        yield f"threat: {threat[:40]}", lambda own=threat: taken(lambda: Threat.parse(own))  # type: ignore[misc]
    for url in STORES:
        yield f"store: {url}", lambda own=url: taken(lambda: Remote(own))  # type: ignore[misc]


_VALUES = ("", "-1", "0", "1e400", "nan", "8", "10**9", "1/0", "1/1e999999999", "9" * 5000, "[" * 500, "{a: b}", "null")
_VALUES += (
    "yes",
    "'\\ud800'",
    "!!python/object:os.system x",
    "&a [*a]",
    "2020-13-45",
    "\x00",
    "1_0",
    "0x10",
    "~",
    ".inf",
)
_KEYS = (
    "seed",
    "training.epochs",
    "model.width",
    "evaluation.threats.0.eps",
    "experts.robust.optimizer.lr",
    "data.name",
)
OVERRIDES = [f"{key}={value}" for key in _KEYS for value in _VALUES]
OVERRIDES += ["", "=", "a", "a=", ".=1", "a..b=1", "experts.0=1", "evaluation.threats.99=1", "evaluation.threats.-1=1"]
THREATS = [f"linf:{value}" for value in _VALUES] + [
    "",
    ":",
    "l3:1",
    "linf",
    "linf:8/255:1",
    "L2:0.5",
    "l1:1e-400",
    "l2:1/3/4",
]
STORES = [
    "zip://",
    "http://[",
    "ftp://",
    "ftp://127.0.0.1:1/x",
    "http://127.0.0.1:1/x",
    "nonsense://x",
    "tar://x",
    "\x00://",
]
STORES += [
    "dir://x",
    "github://",
    "file:///dev/null/x",
    "http://127.0.0.1:999999/",
    "zip::file://no.zip",
    "reference://x",
]
