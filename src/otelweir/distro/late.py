"""What is loaded when it is first used: exporters, clients, encoders.

An OTLP exporter or an HTTP client is a good part of what a process spends on telemetry while it starts; loaded on the
exporting thread at the first batch, it costs a short-lived process nothing. Before a fork all are loaded, and a first
use is waited for: what any thread of the application imports at that moment would stay half imported in the child,
behind a lock that nobody releases. The child makes its own, since one that is shared would share its connections, too.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

from otelweir import errors
from otelweir.pipeline.capture import quiet

T = TypeVar("T")
R = TypeVar("R")

_LOAD_PATIENCE_S: Final = 5.0
"""How long a fork waits for a load, which ends by itself."""
_EXPORT_PATIENCE_S: Final = 1.0
"""How long a fork waits for a first export, which may hang."""


class _Loading:
    """Lets one thread load and export for the first time, and no fork happen meanwhile.

    Attributes:
        patience_s: How long a fork waits.
        exporters: All exporters that are loaded late.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held = False
        self.patience_s = _LOAD_PATIENCE_S
        self.exporters: weakref.WeakSet[Late[Any]] = weakref.WeakSet()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(before=self._before, after_in_parent=self._after, after_in_child=self._in_child)

    def __enter__(self) -> None:
        self._lock.acquire()
        self.patience_s = _LOAD_PATIENCE_S

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def _before(self) -> None:
        # A fork from within an import that the loading thread waits for must not wait for ever.
        self._held = self._lock.acquire(timeout=self.patience_s)
        for lazy in list(self.exporters) if self._held else ():
            lazy.prepare()

    def _after(self) -> None:
        if self._held:
            self._lock.release()

    def _in_child(self) -> None:
        self._lock = threading.Lock()
        for lazy in list(self.exporters):
            lazy.after_fork()


_loading = _Loading()


class Late(Generic[T]):
    """An exporter that is loaded when first asked for.

    Args:
        load: Loads it. When that fails, the failure is reported and what would be exported is lost.
        loaded: The exporter, where it had to be loaded at once.

    Attributes:
        failures: Exports that failed, in this process.
    """

    def __init__(self, load: Callable[[], T], loaded: T | None = None) -> None:
        self._load = load
        self.loaded = loaded
        self._broken = False
        self._worked = False
        self._inherited: T | None = None
        self.failures = 0
        _loading.exporters.add(self)

    def export(self, work: Callable[[T], R], failed: R) -> R:
        """Let the exporter work; gives `failed` where there is none, and counts what failed."""
        result = failed
        try:
            # What an HTTP client logs while it exports is nobody's business, and would have to be exported again.
            with quiet.during(quiet.exporting):
                if self._worked:
                    result = work(self.loaded)  # type: ignore[arg-type]
                elif not self._broken:
                    result = self._first(work, failed)
        finally:
            if result == failed:
                self.failures += 1
        return result

    def prepare(self) -> None:
        """Load it now, and what it would load later."""
        if self.loaded is None and not self._broken:
            try:
                self.loaded = self._load()
            except Exception as error:  # noqa: BLE001 - whatever a plug-in raises
                self._broken = True
                errors.warn(errors.NOT_LOADED, f"an exporter cannot be loaded: {error}", exc_info=error)
        "localhost".encode("idna")  # brings the codec that looking up a host needs

    def _first(self, work: Callable[[T], R], failed: R) -> R:
        with _loading:
            self.prepare()
            if self.loaded is None:
                return failed
            _loading.patience_s = _EXPORT_PATIENCE_S
            result = work(self.loaded)
            self._worked = True
            return result

    def after_fork(self) -> None:
        # Kept, but never used: closing it might say good-bye on the parent's connection.
        self._inherited, self.loaded, self._worked = self.loaded, None, False
        self.failures = 0
