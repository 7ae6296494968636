"""The thread that keeps a spool's disk up to date, whatever the one that sends waits for."""

from __future__ import annotations

import threading
from typing import Final

from otelweir import errors
from otelweir.pipeline.spool.spool import Spool
from otelweir.signals import LANES

BUSY_S: Final = 0.1
"""How often it looks while records come: a file is full within a second, and the next is to be ready."""


class DiskThread:
    """Calls `Spool.sync` every `interval_s`, and more often while records come.

    Args:
        spool: Whose.
        interval_s: What a power failure may take, in seconds: `fsync_s` of the spool.
    """

    def __init__(self, spool: Spool, interval_s: float) -> None:
        self._spool = spool
        self._interval_s = interval_s
        self._begin()

    def _begin(self) -> None:
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(self._ended,), name="otelweir-disk", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:
            pass  # the interpreter is ending; closing the spool will sync it

    def __repr__(self) -> str:
        return f"<DiskThread of {self._spool!r}, {'ended' if self._ended.is_set() else 'running'}>"

    def after_fork(self) -> None:
        """In the child, where no thread but the current one lives: start again."""
        if not self._ended.is_set():
            self._begin()

    def stop(self) -> None:
        """End the thread, without waiting for it."""
        self._ended.set()

    def _run(self, ended: threading.Event) -> None:
        before, pause_s = 0, min(BUSY_S, self._interval_s)
        while not ended.wait(pause_s):
            try:
                self._spool.sync()
                accepted = sum(map(self._spool.accepted, LANES))
            except Exception as error:  # noqa: BLE001 - the thread must live on
                errors.warn(errors.SPOOL_FAILED, f"{type(error).__name__}: {error}", exc_info=error)
                continue
            pause_s = self._interval_s if accepted == before else min(BUSY_S, self._interval_s)
            before = accepted
