"""How the process of a flow run ends by SIGTERM or Ctrl-C: within seconds, also while threads of it compute."""

import contextvars
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

WITHIN = 4.0
"""Seconds; a stage that DVC runs has ten, and Prefect's runner waits for thirty before it kills."""
_TOLD_AFTER = 1.0
"""Seconds after which Prefect is told by us: until its tasks have ended, which may take minutes, it reports nothing."""
_TERMINATED = 128 + signal.SIGTERM


def end_in_time(tell: Callable[[], None]) -> None:
    """Let signals end the process of a flow within seconds; until the flow's end, when Prefect puts them back.

    Prefect's own handler stops the flow, which then waits for the tasks in its threads: minutes, in an evaluation. What
    they were writing is written whole or not at all. A command that has a handler for Ctrl-C takes SIGTERM by the same.

    Args:
        tell: says to Prefect's server that the run has ended; called in a thread.
    """
    if threading.current_thread() is not threading.main_thread():  # where signals are not handled
        return
    ctrl_c, prefect = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    context = contextvars.copy_context()  # a thread's own knows nothing of Prefect's settings

    def by_command(number: int, frame: FrameType | None) -> None:
        _start_timer(_TOLD_AFTER, context.copy().run, tell)
        if callable(ctrl_c):
            ctrl_c(number, frame)

    def alone(number: int, frame: FrameType | None) -> None:
        _start_timer(_TOLD_AFTER, context.copy().run, tell)
        _start_timer(WITHIN, os._exit, _TERMINATED)
        if callable(prefect):
            prefect(number, frame)

    if callable(ctrl_c) and ctrl_c is not signal.default_int_handler:
        signal.signal(signal.SIGINT, by_command)
        signal.signal(signal.SIGTERM, by_command)
    else:
        signal.signal(signal.SIGTERM, alone)


def _start_timer(seconds: float, act: Callable[..., Any], given: Any) -> None:
    watch = threading.Timer(seconds, act, [given])
    watch.daemon = True
    watch.start()
