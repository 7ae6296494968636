"""Content of calls to models on its way to a storage of the user's own: without its secrets.

OpenTelemetry's completion hook gets the messages of a call as they were, beside the span; what it uploads passes
through none of our processors. So it stands behind this one.
"""

from __future__ import annotations

import copy
import dataclasses
import os
from typing import Any, Final

from otelweir import errors
from otelweir.distro import compat, redaction
from otelweir.pipeline.redact.redactor import Scrubber

VARIABLE: Final = "OTEL_INSTRUMENTATION_GENAI_COMPLETION_HOOK"
_CONTENT: Final = ("inputs", "outputs", "system_instruction", "tool_definitions")
_MAX_DEPTH: Final = 16


class RedactedCompletions:
    """Hands the content of calls to another hook, without its secrets. Where that fails, it hands on nothing.

    Args:
        inner: The hook.
    """

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __repr__(self) -> str:
        return f"<RedactedCompletions before {self._inner!r}>"

    def on_completion(self, **given: Any) -> None:
        """What OpenTelemetry calls at the end of a call."""
        try:
            redactor = redaction.in_force()
            if redactor is not None:
                scrubber = redactor.of("traces")
                given |= {name: _scrubbed(given[name], scrubber) for name in _CONTENT if given.get(name)}
        except Exception as error:  # noqa: BLE001 - what could not be looked at may not leave
            errors.warn(errors.GENAI_FAILED, f"{type(error).__name__}: {error}; nothing is uploaded", exc_info=error)
            return
        self._inner.on_completion(**given)


def completion_hook() -> Any:
    """The hook that OpenTelemetry's variable names, behind redaction; None where it names none."""
    if not os.environ.get(VARIABLE, "").strip():
        return None
    return RedactedCompletions(compat.completion_hook())


def _scrubbed(value: Any, scrubber: Scrubber, depth: int = 0) -> Any:
    """Messages and their parts are dataclasses, which stay what they are; what is in them is scrubbed."""
    if depth > _MAX_DEPTH:
        return "…"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        found = copy.copy(value)
        for field in dataclasses.fields(value):
            object.__setattr__(found, field.name, _scrubbed(getattr(value, field.name), scrubber, depth + 1))
        return found
    if isinstance(value, (list, tuple)) and any(map(dataclasses.is_dataclass, value)):
        return [_scrubbed(item, scrubber, depth + 1) for item in value]
    return scrubber.value(value)
