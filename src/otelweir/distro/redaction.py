"""Redaction on the way into the spool: encoders that turn out nothing with a secret in it.

Most records hold no secret, so they are encoded as they are, and what is encoded for the first time is looked at: the
encoder's caches hold only what has passed. A record in which something does not pass is redacted as a whole, by what
other exporters stand behind, too, and encoded then (docs/decisions/0009-redaction.md).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from otelweir import errors
from otelweir.pipeline.redact import otel
from otelweir.pipeline.redact.otel import Clean, LogRedaction, SpanRedaction
from otelweir.pipeline.redact.redactor import Redactor, Scrubber
from otelweir.pipeline.redact.settings import RedactSettings, plan_of
from otelweir.pipeline.spool.otlp import Caches, Encoded, Unclean, encode_log, encode_span
from otelweir.variables import read


def redactor_of(settings: RedactSettings) -> Redactor | None:
    """The redactor that the settings ask for; None where they turn it off. A detector that is missing is reported."""
    try:
        return otel.redactor_of(settings)
    except errors.MissingExtra as error:
        errors.warn(error.problem, f"WEIR_REDACT_DETECTOR={settings.redact_detector}: {error.detail}")
        return Redactor(plan_of(settings))


_in_force: list[Redactor | None] = []


def use(redactor: Redactor | None) -> None:
    """From now on this is the process's redactor; None where redaction is off."""
    _in_force[:] = [redactor]


def in_force() -> Redactor | None:
    """The process's redactor; where nothing was assembled, what the variables say. None where redaction is off."""
    if not _in_force:
        use(redactor_of(read(RedactSettings, os.environ)[0]))
    return _in_force[0]


def span_encoder(redactor: Redactor) -> Callable[[Any], Encoded]:
    """Encodes spans without their secrets. Never raises."""
    scrubber = redactor.of("traces")
    return _encoder(scrubber, encode_span, SpanRedaction(scrubber))


def log_encoder(redactor: Redactor) -> Callable[[Any], Encoded]:
    """Encodes log records without their secrets. Never raises."""
    scrubber = redactor.of("logs")
    return _encoder(scrubber, encode_log, LogRedaction(scrubber))


def _encoder(
    scrubber: Scrubber, encode: Callable[..., Encoded], redact: Callable[[Any], Any]
) -> Callable[[Any], Encoded]:
    check = Clean(scrubber)
    caches = Caches(check)

    def encoded(record: Any) -> Encoded:
        nonlocal check, caches
        if check.plan is not scrubber.plan:
            check = Clean(scrubber)
            caches = Caches(check)
        try:
            return encode(record, caches)
        except Unclean:
            return encode(redact(record))

    return encoded
