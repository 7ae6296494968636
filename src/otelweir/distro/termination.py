"""SIGTERM ends a process that does not handle it without running anything; what waits to be sent would be lost.

Orchestrators end services with SIGTERM, and servers that shut down gracefully raise it again at the end (uvicorn does),
so this is how most services end. Where the signal has its default action, it first lets the pipeline end, in bounded
time, and then does what it would have done: the exit status stays that of the signal.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Final

_NUDGE_S: Final = 0.05
"""How long a signal may stay unheeded before the main thread is told again."""

_finish: Callable[[], object] | None = None
_ending = False
_watched: tuple[int, int] | None = None
"""The pipe that tells of signals, where there is one: its read end and its write end."""


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


def heed_sigterm() -> None:
    """Make sure that a worker process of multiprocessing ends at SIGTERM, whatever it waits for.

    Python runs a handler when the main thread is back from C code. A signal that comes just before the thread begins
    to wait there is not heard until the next one, and a pool that ends its workers sends one only, while it holds the
    lock they wait for: both would wait for ever. So a thread learns of the signal as it comes, and sends it to the main
    thread until that has heard. Does nothing where the signal is not ours, or somebody else wants to be told.
    """
    global _watched
    if signal.getsignal(signal.SIGTERM) is not _end or not hasattr(signal, "pthread_kill"):
        return
    read, write = os.pipe()
    os.set_blocking(write, False)
    before = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    if before != -1:
        signal.set_wakeup_fd(before)
        os.close(read)
        os.close(write)
        return
    _watched = (read, write)
    threading.Thread(target=_watch, args=(read,), name="otelweir-sigterm", daemon=True).start()


def _watch(read: int) -> None:
    while signal.SIGTERM not in os.read(read, 64):
        pass
    main = threading.main_thread().ident
    assert main is not None
    while True:
        time.sleep(_NUDGE_S)
        if _ending:
            return
        signal.pthread_kill(main, signal.SIGTERM)


def _after_fork() -> None:
    """In the child: what comes through the pipe is the parent's business."""
    global _ending, _watched
    _ending = False
    if _watched is not None:
        before = signal.set_wakeup_fd(-1)
        if before != _watched[1]:
            signal.set_wakeup_fd(before)
        for end in _watched:
            os.close(end)
        _watched = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


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
    global _ending
    _ending = True
    finish = _finish
    try:
        if finish is not None:
            finish()
    finally:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
