"""The settings of transmit. Where to send, and how, `OTEL_EXPORTER_OTLP_*` say."""

from __future__ import annotations

from dataclasses import dataclass

from otelweir.pipeline.transmit.sizing import FACTOR, MAX_BYTES, MIN_BYTES
from otelweir.variables import Secret, number, secret, setting, size, text, url


@dataclass(frozen=True, eq=False, repr=False)
class TransmitSettings:
    """The settings of sending."""

    batch_min_bytes: int = setting("WEIR_BATCH_MIN_BYTES", MIN_BYTES, size(1))
    """The size of requests, before compression, does not shrink below this, unless the server takes less."""

    batch_max_bytes: int = setting("WEIR_BATCH_MAX_BYTES", MAX_BYTES, size(1))
    """The size of requests does not grow above this."""

    batch_factor: float = setting("WEIR_BATCH_FACTOR", FACTOR, number(least=1))
    """By how much the size grows while answers are quick, and shrinks when they are slow or fail. 1 keeps the size."""

    backlog_rate: int = setting("WEIR_BACKLOG_RATE", 4 * 2**20, size(2**10))
    """Bytes per second, before compression, at which what waits from before is sent beside what is new. The end of the
    process knows no such limit."""

    headers_file: str | None = setting("WEIR_HEADERS_FILE", None, text("the path of a file"))
    """A file of headers for every request, one `name: value` a line. It wins over `OTEL_EXPORTER_OTLP_HEADERS` and is
    read again when it changes."""

    auth_url: str | None = setting("WEIR_AUTH_URL", None, url("a URL beginning with http:// or https://"))
    """Where to log in for a token, which every request then carries. Needs a user and a password."""

    auth_user: str | None = setting("WEIR_AUTH_USER", None, text("a name or an address"))
    """Who logs in."""

    auth_password: Secret | None = setting("WEIR_AUTH_PASSWORD", None, secret("a password"))
    """The password for the login."""

    auth_workspace: str | None = setting("WEIR_AUTH_WORKSPACE", None, text("a name"))
    """Goes along with the login, where the server has several."""
