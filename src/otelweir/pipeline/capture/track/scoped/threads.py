"""Threads that know what they were started for: the current span, and what `otelweir.context` says.

Work that is given to a `ThreadPoolExecutor` runs in the context of who gave it, and so does a thread that is started.
Not so daemon threads, which usually serve everybody: connections, queues, exporters. Nor the pool's own threads.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import wrapt

from otelweir.pipeline.capture.track.scoped.otel import carry, get_current

_submitting = threading.local()
_wrapped: list[tuple[Any, str, Any]] = []


def install() -> None:
    """Let threads and thread pools carry the context from now on. Called again, does nothing."""
    if _wrapped:
        return
    for owner, name, wrapper in ((threading.Thread, "start", _start), (ThreadPoolExecutor, "submit", _submit)):
        before = owner.__dict__[name]
        _wrapped.append((owner, name, before))
        setattr(owner, name, wrapt.FunctionWrapper(before, wrapper))


def uninstall() -> None:
    """Undo `install`."""
    while _wrapped:
        owner, name, before = _wrapped.pop()
        setattr(owner, name, before)


def _start(
    wrapped: Callable[..., Any], instance: threading.Thread, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    if get_current() and not instance.daemon and not getattr(_submitting, "now", False) and not instance.ident:
        run = carry(instance.run)

        def once() -> None:
            # The thread outlives its work, and this would hold it in a circle.
            vars(instance).pop("run", None)
            run()

        vars(instance)["run"] = once
    return wrapped(*args, **kwargs)


def _submit(wrapped: Callable[..., Any], instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if not args or not callable(args[0]) or not get_current():
        return wrapped(*args, **kwargs)
    _submitting.now = True
    try:
        return wrapped(carry(args[0]), *args[1:], **kwargs)
    finally:
        _submitting.now = False
