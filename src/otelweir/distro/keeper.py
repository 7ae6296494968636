"""The one thread of Weir's own: what is due from time to time, and what has to end in time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue

from otelweir import errors


class Keeper:
    """Runs a job every so often, and others on request, on one daemon thread.

    At exit, work that may hang (a flush to a server that does not answer) runs on the thread while the caller waits no
    longer than it wants to. The thread exists from the start, because from Python 3.12 on none can be started while
    the interpreter shuts down.

    Args:
        job: What is due from time to time.
        interval_s: How often.
    """

    def __init__(self, job: Callable[[], None], interval_s: float) -> None:
        self._job = job
        self._interval_s = interval_s
        self._start()

    def _start(self) -> None:
        self._requests: SimpleQueue[tuple[Callable[[], object], threading.Event] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, args=(self._requests,), name="otelweir-keeper", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:
            pass  # the interpreter is ending; then `run` works on the caller's thread

    def after_fork(self) -> None:
        """In the child, where no thread but the current one lives: start again."""
        self._start()

    def run(self, work: Callable[[], object], timeout_s: float) -> bool:
        """Run something on the thread; True when it was done in time. What comes late goes on unwatched."""
        if not self._thread.is_alive() or threading.current_thread() is self._thread:
            work()
            return True
        done = threading.Event()
        self._requests.put((work, done))
        return done.wait(timeout_s)

    def stop(self) -> None:
        """End the thread after what was requested before."""
        self._requests.put(None)

    def _run(self, requests: SimpleQueue[tuple[Callable[[], object], threading.Event] | None]) -> None:
        due = time.monotonic() + self._interval_s
        while True:
            try:
                request = requests.get(timeout=max(0.0, due - time.monotonic()))
            except Empty:
                due = time.monotonic() + self._interval_s
                self._guarded(self._job)
                continue
            if request is None:
                return
            work, done = request
            self._guarded(work)
            done.set()

    @staticmethod
    def _guarded(work: Callable[[], object]) -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - the thread must live on
            errors.warn(errors.SAMPLE_FAILED, f"{type(error).__name__}: {error}", exc_info=error)
