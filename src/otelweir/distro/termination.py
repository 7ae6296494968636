"""SIGTERM ends a process that does not handle it without running anything; what waits to be sent would be lost.

Orchestrators end services with SIGTERM, and servers that shut down gracefully raise it again at the end (uvicorn does),
so this is how most services end. Where the signal has its default action, it first lets the pipeline end, in bounded
time, and then does what it would have done: the exit status stays that of the signal.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType

_finish: Callable[[], object] | None = None


def finish_at_sigterm(finish: Callable[[], object]) -> bool:
    """Call something before SIGTERM ends this process, unless the application handles the signal itself.

    Args:
        finish: What to do; it must come to an end.

    Returns:
        Whether the signal is ours: it had its default action, and this is the main thread, where signals are set.
    """
    global _finish
    if threading.current_thread() is not threading.main_thread():
        return False
    if signal.getsignal(signal.SIGTERM) not in (signal.SIG_DFL, _end):
        return False
    _finish = finish
    signal.signal(signal.SIGTERM, _end)
    return True


def leave_sigterm() -> None:
    """Give the signal its default action back, if it is ours."""
    global _finish
    _finish = None
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is _end:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _end(number: int, frame: FrameType | None) -> None:
    # An application that set a handler of its own may call the one before it, as it finds one: then the signal is its
    # business, and with the default action there would have been nothing to call.
    if signal.getsignal(number) is not _end:
        return
    finish = _finish
    try:
        if finish is not None:
            finish()
    finally:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
