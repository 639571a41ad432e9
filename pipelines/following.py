"""Runs a module whose process group ends with whoever started it, also where that was killed.

python -m pipelines.following MODULE ARGUMENT..., with a pipe as standard input that its parent keeps open.
"""

import os
import runpy
import signal
import sys
import threading


def follow_parent(descriptor: int = 0) -> None:
    """Kill this process's group once the other end of a pipe is closed, which a process's death does for certain.

    Children of children go, too. Nobody asks them to end: who was killed had no time to ask either.
    """

    def wait() -> None:
        while os.read(descriptor, 1):
            pass
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=wait, daemon=True).start()


if __name__ == "__main__":
    follow_parent()
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
