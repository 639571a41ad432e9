"""How the process of a flow run ends by SIGTERM: within seconds, also while threads of it compute."""

import os
import signal
import threading
from types import FrameType

WITHIN = 4.0
"""Seconds; a stage that DVC runs has ten, and Prefect's runner waits for thirty before it kills."""
_TERMINATED = 128 + signal.SIGTERM


def end_in_time() -> None:
    """Called in a flow, let SIGTERM end its process within seconds; until the flow's end, when Prefect puts it back.

    Prefect's own handler stops the flow, which then waits for the tasks in its threads: minutes, in an evaluation. What
    they were writing is written whole or not at all. A command that has a handler for Ctrl-C takes SIGTERM by the same.
    """
    if threading.current_thread() is not threading.main_thread():  # where signals are not handled
        return
    ctrl_c, prefect = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    if callable(ctrl_c) and ctrl_c is not signal.default_int_handler:
        signal.signal(signal.SIGTERM, ctrl_c)
        return

    def stop(number: int, frame: FrameType | None) -> None:
        watch = threading.Timer(WITHIN, os._exit, [_TERMINATED])
        watch.daemon = True
        watch.start()
        if callable(prefect):
            prefect(number, frame)

    signal.signal(signal.SIGTERM, stop)
