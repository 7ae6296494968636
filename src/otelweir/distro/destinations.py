"""Where each signal goes, and how: what the `OTEL_EXPORTER_OTLP_*` variables say, made into senders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from otelweir.distro.otel_variables import headers as read_headers
from otelweir.settings import Settings
from otelweir.signals import Lane
from otelweir.variables import without_credentials


@dataclass(frozen=True)
class Destination:
    """Where a lane goes.

    Attributes:
        lane: The signal.
        protocol: Of OTLP.
        endpoint: Fit to be shown.
        key: Equal for lanes that go to the same server.
    """

    lane: Lane
    protocol: str
    endpoint: str
    key: str
    _url: str = field(repr=False)
    _headers: tuple[tuple[str, str], ...] = field(repr=False)

    def sender(self) -> Any:
        from otelweir.pipeline.transmit.http import HttpSender

        return HttpSender(self._url, lambda: dict(self._headers))


def destination(
    lane: Lane,
    environ: Mapping[str, str],
    *,
    endpoint: str | None = None,
    headers: Mapping[str, str] | None = None,
    settings: Settings,
) -> Destination:
    """The destination of a lane."""
    base = endpoint or environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "") or "http://localhost:4318"
    url = environ.get(f"OTEL_EXPORTER_OTLP_{lane.upper()}_ENDPOINT", "") if not endpoint else ""
    url = url or f"{base.rstrip('/')}/v1/{lane}"
    found = dict(headers) if headers is not None else dict(read_headers(environ.get("OTEL_EXPORTER_OTLP_HEADERS", "")))
    return Destination(
        lane, "http/protobuf", without_credentials(url), urlsplit(url).netloc, url, tuple(sorted(found.items()))
    )
