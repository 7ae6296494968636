"""Spans of the process's own provider, kept in memory."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from opentelemetry import trace as trace_api
from opentelemetry.context import Context, attach, detach
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from otelweir.pipeline.capture.track import content


class Spans:
    """The finished spans of one test."""

    def __init__(self, exporter: InMemorySpanExporter) -> None:
        self._exporter = exporter

    def __call__(self, name: str | None = None) -> list[ReadableSpan]:
        """In the order in which they ended."""
        return [span for span in self._exporter.get_finished_spans() if name in (None, span.name)]

    def one(self, name: str | None = None) -> ReadableSpan:
        """The only one."""
        (span,) = self(name)
        return span


_exporter = InMemorySpanExporter()
_added: list[TracerProvider] = []


@pytest.fixture
def provider() -> TracerProvider:
    """OpenTelemetry's global one, which is set once in a process."""
    if not isinstance(trace_api.get_tracer_provider(), TracerProvider):
        trace_api.set_tracer_provider(TracerProvider(shutdown_on_exit=False))
    found = trace_api.get_tracer_provider()
    assert isinstance(found, TracerProvider)
    if found not in _added:
        _added.append(found)
        found.add_span_processor(SimpleSpanProcessor(_exporter))
    return found


@pytest.fixture
def tracer(provider: TracerProvider) -> trace_api.Tracer:
    """One of another library."""
    return provider.get_tracer("other")


@pytest.fixture
def spans(provider: TracerProvider, caplog: pytest.LogCaptureFixture) -> Iterator[Spans]:
    """What ends in a test, which starts outside of any span; nothing may be said about contexts or ended spans."""
    _exporter.clear()
    token = attach(Context())
    with caplog.at_level(logging.WARNING):
        yield Spans(_exporter)
    detach(token)
    said = [record.getMessage() for record in caplog.records if record.name.startswith("opentelemetry")]
    assert said == []


@pytest.fixture(autouse=True)
def _time_enough(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine may take long over a small value; what is cut for want of time has tests with a clock."""
    if "content" not in request.node.nodeid.rpartition("/")[2].partition("::")[0]:
        monkeypatch.setattr(content, "MAX_S", 30.0)
