"""A foreign model's first images, in a process of its own: whatever it does there ends there. No torch here.

A graph may loop for ever, also in ONNX's checker; take all memory; or end the process that runs it.
"""

import json
import math
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from generalist.errors import BadInput
from generalist.export.integrity import check, first_line
from generalist.export.interface import REFUSALS, of_others, session

_FEW = 2  # images for a model that takes any number: more than one, as its logits may be of one whatever it is given


@dataclass(frozen=True)
class ProbeReport:
    """What a trial shows.

    Attributes:
        classes: number of logits.
        seconds: that an image took.
    """

    classes: int
    seconds: float


def probe_model(
    content: bytes, path: Path, threads: int, shape: tuple[int, int, int] | None, limit: float
) -> ProbeReport:
    """Check a model, load it and ask it for the logits of a few random images.

    Args:
        content: the model with all its weights.
        path: its file, for sentences.
        threads: intra-op threads.
        shape: [channels, height, width], for those of these sizes that it leaves open.
        limit: seconds.

    Raises:
        BadInput: it is no classifier, or fails, or does not answer in time.
    """
    asked = json.dumps({"path": str(path), "threads": threads, "shape": shape, "limit": limit})
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.seek(0)
        try:
            done = subprocess.run(  # noqa: S603  this very module
                [sys.executable, "-P", "-m", __name__, asked],
                stdin=file,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                timeout=limit,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise BadInput(
                f"{path} gives no logits for its first images within {limit:g} s: its graph may have a loop that never"
                " ends; export it again"
            ) from None
    lines = done.stdout.decode(errors="replace").splitlines()
    if done.returncode or not lines:
        raise BadInput(
            f"{path} ends the process that runs it (exit code {done.returncode}), as where it takes all memory: export"
            " a smaller one"
        )
    answer = json.loads(lines[-1])
    if "refused" in answer:
        raise BadInput(answer["refused"])
    return ProbeReport(int(answer["classes"]), float(answer["seconds"]))


def _main(asked: dict[str, Any], content: bytes) -> dict[str, Any]:
    """Do what is asked, in the other process."""
    path, shape = Path(asked["path"]), tuple(asked["shape"] or ())
    try:
        check(content, path)
        made = session(content, path, asked["threads"], "cpu")
        interface = of_others(made, path, shape or None)
        count = interface.batch or _FEW
        images = np.random.default_rng(0).random((count, *interface.shape), dtype=np.float32)
        before = time.monotonic()
        (logits,) = made.run([interface.names[1]], interface.feed(images, 1.0))
        seconds = (time.monotonic() - before) / count
    except BadInput as error:
        return {"refused": str(error)}
    except REFUSALS as error:
        return {"refused": f"{path} fails on its first images ({first_line(error)}): export it again"}
    sizes = list(np.shape(logits))
    if len(sizes) != 2 or sizes[0] != count or sizes[1] != (interface.classes or sizes[1]) or not sizes[1]:
        expected = [count, interface.classes or "classes"]
        return {
            "refused": f"{path} gives logits {sizes} for {count} images, expected {expected}: export it with one row of"
            " logits for each image"
        }
    return {"classes": sizes[1], "seconds": seconds}


def _bound(limit: float) -> None:
    """Let this process end by itself, and have no more memory than there is; the kernel ends it before others."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    most = resource.getrlimit(resource.RLIMIT_AS)[1]
    most = memory if most == resource.RLIM_INFINITY else min(memory, most)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    with suppress(OSError, ValueError):  # its parent may be killed before it ends it
        signal.setitimer(signal.ITIMER_REAL, math.ceil(limit) + 5)


if __name__ == "__main__":
    _asked = json.loads(sys.argv[1])
    _bound(_asked["limit"])
    print(json.dumps(_main(_asked, sys.stdin.buffer.read())))  # noqa: T201  its result
