"""Real clients, a provider of models on this machine, and an SDK whose spans and metrics can be looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import Sampler

from otelweir.demo.provider import ModelProvider
from otelweir.pipeline.capture.genai.otel import GenAISpanProcessor
from otelweir.pipeline.capture.genai.settings import GenAISettings


@dataclass
class Sdk:
    """An SDK with our processor.

    Attributes:
        settings: Of the processor.
        sampler: None for the SDK's own.
        providers: As instrumentations take them.
    """

    settings: GenAISettings = field(default_factory=GenAISettings)
    sampler: Sampler | None = None

    def __post_init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self._reader = InMemoryMetricReader()
        meters = MeterProvider(metric_readers=[self._reader], shutdown_on_exit=False)
        tracers = TracerProvider(sampler=self.sampler, shutdown_on_exit=False)
        tracers.add_span_processor(GenAISpanProcessor(SimpleSpanProcessor(self._exporter), self.settings, meters))
        self.tracer = tracers.get_tracer("test")
        self.providers: dict[str, Any] = {"tracer_provider": tracers, "meter_provider": meters}

    @property
    def spans(self) -> list[ReadableSpan]:
        return list(self._exporter.get_finished_spans())

    @property
    def calls(self) -> list[ReadableSpan]:
        """The spans that say they are a model's."""
        return [span for span in self.spans if "gen_ai.operation.name" in (span.attributes or {})]

    def call(self) -> Mapping[str, Any]:
        """The attributes of the only call there was."""
        (span,) = self.calls
        return span.attributes or {}

    def metric(self, name: str) -> dict[tuple[str, ...], float]:
        """The sums of a metric, by provider, model that was asked, and operation."""
        data = self._reader.get_metrics_data()
        found: dict[tuple[str, ...], float] = {}
        for resource in data.resource_metrics if data else []:
            for metric in (metric for scope in resource.scope_metrics for metric in scope.metrics):
                if metric.name == name:
                    for point in metric.data.data_points:
                        key = tuple(
                            str((point.attributes or {}).get(f"gen_ai.{part}"))
                            for part in ("provider.name", "request.model", "operation.name")
                        )
                        found[key] = found.get(key, 0) + getattr(point, "value", getattr(point, "sum", 0))
        return found


@pytest.fixture
def content(monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages are captured on spans."""
    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "span_only")


@pytest.fixture
def sdk() -> Sdk:
    return Sdk()


@pytest.fixture
def make_sdk() -> Callable[..., Sdk]:
    return lambda **settings: Sdk(GenAISettings(**settings))


@pytest.fixture
def provider() -> Iterator[ModelProvider]:
    with ModelProvider() as provider:
        yield provider


@pytest.fixture
def serve() -> Iterator[Callable[..., ModelProvider]]:
    """Starts providers that answer what they are told to."""
    running: list[ModelProvider] = []

    def start(*replies: Any) -> ModelProvider:
        running.append(ModelProvider(replies))
        return running[-1]

    yield start
    for provider in running:
        provider.close()
