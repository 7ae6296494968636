"""The whole wiring, in one place: from the environment and `configure()` to running providers."""

from __future__ import annotations

import atexit
import importlib.metadata
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Final, Protocol

import wrapt
from opentelemetry import _logs as logs_api
from opentelemetry import metrics as metrics_api
from opentelemetry import trace as trace_api
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.sdk._logs import LoggerProvider, LogRecordProcessor
from opentelemetry.sdk._logs.export import LogRecordExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricExporter, MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, SynchronousMultiSpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter

from otelweir import errors
from otelweir.distro import compat, redaction
from otelweir.distro.defaults import OTEL_DEFAULTS
from otelweir.distro.delivery import Delivery, service_folder
from otelweir.distro.exporters import PROTOCOLS, Signal, Target, exporters, names
from otelweir.distro.keeper import Keeper
from otelweir.distro.lanes import LogLanes
from otelweir.distro.redaction import log_encoder, redactor_of, span_encoder
from otelweir.distro.termination import finish_at_sigterm, heed_sigterm, leave_sigterm
from otelweir.distro.weir_exporters import WeirLogExporter, WeirSpanExporter
from otelweir.pipeline.capture import logging_bridge
from otelweir.pipeline.capture.genai.otel import GenAILogProcessor, GenAISampler, GenAISpanProcessor
from otelweir.pipeline.capture.otel import LogCapture
from otelweir.pipeline.capture.resource import STATED, stated
from otelweir.pipeline.capture.track.limits import limits
from otelweir.pipeline.capture.track.scoped import otel as scoped
from otelweir.pipeline.capture.track.scoped import threads
from otelweir.pipeline.redact.otel import (
    MetricRedaction,
    RedactingLogProcessor,
    RedactingMetricExporter,
    RedactingSpanProcessor,
    count_replacements,
)
from otelweir.pipeline.redact.redactor import Redactor
from otelweir.pipeline.sample.logs.otel import PatternSamplingProcessor, Processors, count_records, send_rollups
from otelweir.pipeline.sample.logs.rules import Rules
from otelweir.pipeline.sample.logs.sampler import LogSampler
from otelweir.pipeline.spool.otel import SpoolLogProcessor, SpoolSpanProcessor
from otelweir.selfmetrics.flushed import Flushed
from otelweir.selfmetrics.tally import Count
from otelweir.settings import Loaded, Settings
from otelweir.signals import Lane

if TYPE_CHECKING:
    from otelweir.pipeline.sample.logs.flight import FlightRecorder
    from otelweir.pipeline.sample.spans.otel import TailSamplingProcessor

_NEVER_S: Final = 10 * 365 * 86400.0


class Provider(Protocol):
    """What the SDK's three providers have in common."""

    def force_flush(self, timeout_millis: int = ...) -> Any: ...

    def shutdown(self) -> Any: ...


class Handle:
    """What was assembled, to flush it and to end it.

    Attributes:
        settings: The settings in force, with their origins.
        capture: Where log calls enter; None when logs are off.
        sampler: Decides on log records; None when sampling is off.
        ended: Whether it was shut down.
    """

    def __init__(
        self,
        loaded: Loaded,
        *,
        own: Sequence[Provider] = (),
        others: Sequence[Provider] = (),
        exporters: Sequence[object] = (),
        delivery: Delivery | None = None,
        logger_provider: LoggerProvider | None = None,
        capture: LogCapture | None = None,
        sampler: LogSampler | None = None,
    ) -> None:
        """
        Args:
            loaded: The settings.
            own: Providers to flush and to shut down, in this order.
            others: Providers that somebody else set up, to be flushed only.
            exporters: What tells whether everything was sent.
            delivery: How OTLP leaves; None where nothing does by the spool.
            logger_provider: Where roll-ups go.
            capture: Where log calls enter.
            sampler: Decides on log records.
        """
        self.settings = loaded
        self.capture = capture
        self.sampler = sampler
        self.ended = False
        self._over = threading.Event()
        self._own = own
        self._others = others
        self._exporters = [exporter.lazy for exporter in exporters if hasattr(exporter, "lazy")]
        self._delivery = delivery
        self._logger_provider = logger_provider
        self._on_shutdown: list[Callable[[], object]] = []
        self._keeper: Keeper | None = None
        if own or others:
            interval_s = loaded.settings.log_rollup_interval if sampler is not None else _NEVER_S
            self._keeper = Keeper(self.send_rollups, interval_s)

    def __repr__(self) -> str:
        state = "ended" if self.ended else "running"
        return f"<Handle {state}, sampler {self.sampler!r}>"

    def flush(self, timeout_s: float = 10.0) -> Flushed:
        """Send the counts of the patterns and all that is waiting, and wait for it.

        Args:
            timeout_s: How long to wait, over all signals.

        Returns:
            How many records were delivered meanwhile, how many wait still, and how many were lost and why. True, as a
            condition, only if all of it arrived that was there when the call was made.
        """
        if self.ended:
            return Flushed()
        sent: dict[Lane, Count] = {}

        def work(until: float) -> bool:
            self.send_rollups()
            with self._together():
                done = self._flushed([*self._own, *self._others], until)
            if self._delivery is not None:
                # From here on: roll-ups and metrics are among what has to arrive.
                sent.update(self._delivery.tally.now())
                self._delivery.flush(max(0.0, until - time.monotonic()))
            return done

        return self._run(work, timeout_s, sent)

    def shutdown(self, timeout_s: float | None = None) -> Flushed:
        """Send the last roll-ups and what is waiting, then stop. Called again, does nothing.

        What is not sent in time stays on disk, and the last log line says how much and where. The process cannot start
        again: OpenTelemetry's global providers are set once.

        Args:
            timeout_s: How long it may take, over all signals; None for `WEIR_SHUTDOWN_TIMEOUT`.

        Returns:
            As `flush`.
        """
        limit_s = self.settings.settings.shutdown_timeout if timeout_s is None else timeout_s
        if self._over.is_set():
            return Flushed()
        # A signal may come anywhere in here, and calls this again: whoever asks first, the work is done once, and
        # everybody waits until it is.
        self.ended = True

        def work(until: float) -> bool:
            if self._over.is_set():
                return True
            logging_bridge.stop()
            for end in self._on_shutdown:
                end()
            self.send_rollups()
            with self._together():
                done = self._flushed(self._others, until)
                for provider in self._own:
                    provider.shutdown()
            if self._delivery is not None:
                self._delivery.end(max(0.0, until - time.monotonic()))
            # Only now: an exporter that is still busy has to stay quiet.
            logging_bridge.uninstall()
            self._over.set()
            return done

        done = self._run(work, limit_s)
        leave_sigterm()
        if self._keeper is not None:
            self._keeper.stop()
        atexit.unregister(self.shutdown)
        return done

    def send_rollups(self) -> None:
        """Send the exact counts of the log patterns since the last time."""
        if self.sampler is not None and self._logger_provider is not None:
            send_rollups(self.sampler, self._logger_provider)

    def _run(
        self, work: Callable[[float], bool], timeout_s: float, sent: Mapping[Lane, Count] | None = None
    ) -> Flushed:
        """Do something on the keeper's thread, by a time of the monotonic clock; says what became of what waited.

        Args:
            work: What to do.
            timeout_s: How long it may take.
            sent: Gets a look at the tally as sending begins; None where nothing may come after that.
        """
        if self._keeper is None:
            return Flushed()
        delivery = self._delivery
        failed, before = self._failures(), delivery.tally.now() if delivery is not None else {}
        until = time.monotonic() + timeout_s
        done: list[bool] = []
        in_time = self._keeper.run(lambda: done.append(work(until)), timeout_s)
        others = in_time and done == [True] and self._failures() == failed
        if delivery is None:
            return Flushed(others=others)
        return Flushed.between(before, delivery.tally.now(), delivery.folder, others=others, sent=sent or None)

    def _together(self) -> AbstractContextManager[None]:
        return self._delivery.together() if self._delivery is not None else nullcontext()

    def _failures(self) -> int:
        return sum(exporter.failures for exporter in self._exporters)

    @staticmethod
    def _flushed(providers: Sequence[Provider], until: float) -> bool:
        done = True
        for provider in providers:
            try:
                left_ms = max(1, int((until - time.monotonic()) * 1000))
                done = provider.force_flush(left_ms) is not False and done
            except Exception:  # noqa: BLE001 - metric readers raise what others return
                done = False
        return done

    def _after_fork(self) -> None:
        """In the child: whatever was on its way in the parent is the parent's to send."""
        if self.ended:
            return
        if self.capture is not None:
            self.capture.after_fork()
        if self.sampler is not None:
            self.sampler.after_fork()
        if self._keeper is not None:
            self._keeper.after_fork()
        self._end_with_multiprocessing()

    def _end_with_multiprocessing(self) -> None:
        """A child of multiprocessing ends without `atexit`: by finalizers of its own, this one last, or by SIGTERM."""
        util = sys.modules.get("multiprocessing.util")
        if util is not None:
            util.register_after_fork(self, Handle._in_multiprocessing)

    def _in_multiprocessing(self) -> None:
        from multiprocessing.util import Finalize

        Finalize(None, self.shutdown, exitpriority=-100)
        heed_sigterm()

    def _end_with_celery(self) -> None:
        """A worker process of celery ends with `os._exit`; before that it sends a signal of celery's own."""

        @wrapt.when_imported("celery.signals")
        def _(signals: Any) -> None:
            signals.worker_process_shutdown.connect(lambda **_: self.shutdown(), weak=False)


def assemble(  # noqa: PLR0915 - the wiring reads from top to bottom
    loaded: Loaded,
    *,
    target: Target = Target(),  # noqa: B008 - frozen
    resource_attributes: Mapping[str, Any] | None = None,
) -> Handle:
    """Build the pipeline and make it OpenTelemetry's global one.

    Signals that somebody has set up already stay as they are, which is reported.

    Args:
        loaded: The settings.
        target: Where `configure()` says to send.
        resource_attributes: Win over everything that is detected, and over the variables.
    """
    settings = loaded.settings
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return Handle(loaded)
    before = _set_up()
    own: list[Provider] = []
    sending: list[Any] = []
    redactor = redactor_of(settings)
    redaction.use(redactor)
    if redactor is not None:
        # Here, and not within the first call of the application that needs them.
        redactor.load()
    recorder = _recorder(settings)
    tail: TailSamplingProcessor | None = None
    with _defaults():
        environ = os.environ
        delivery: Delivery | None = None
        if (path := compat.config_file()) is not None:
            _from_file(path)
            own += _set_up().values()
        else:
            if before:
                errors.warn(
                    errors.ALREADY_CONFIGURED, f"the providers of {', '.join(before)} are set and stay as they are"
                )
            resource = Resource.create({**_own_attributes(), **_stated_in_code(loaded), **(resource_attributes or {})})
            compat.run_opamp("pre_sdk_init_function", resource)
            delivery = _delivery(settings, resource, environ)
            for signal, build in _BUILD.items():
                if signal not in before:
                    to = exporters(signal, environ, target, delivery)
                    own.append(build(resource, to, settings, redactor))
                    sending += to
                    if signal == "traces":
                        tail = _export_spans(own[-1], to, settings, recorder, redactor)
            compat.run_opamp("post_sdk_init_function", resource)

        in_use = _set_up()
        logger_provider, meter_provider = in_use.get("logs"), in_use.get("metrics")
        ours = path is None and "logs" not in before
        log_exporters = [exporter for exporter in sending if isinstance(exporter, LogRecordExporter)]
        sampler = capture = None
        # Without an exporter nothing is captured; whether a provider of somebody else's has one, nobody tells.
        if isinstance(logger_provider, LoggerProvider) and (log_exporters or not ours):
            sampler = _sampler(settings)
            if ours:
                before_all = _before_all(log_exporters, sampler, settings, recorder, redactor)
                _add_processors(logger_provider, before_all, settings)
            if sampler is not None and isinstance(meter_provider, MeterProvider):
                count_records(sampler, meter_provider)
            capture = LogCapture(
                logger_provider,
                sampler,
                code=_wants_code(loaded, environ),
                bounded=ours,
                recorder=recorder if sampler is not None else None,
                of_trace=recorder.of_trace if recorder is not None else {},
            )
            if settings.log_capture and not _logging_is_disabled(environ):
                _bridge(capture, logger_provider)

        _report_traces(settings, tail, in_use, ours=ours)
        _report(meter_provider, delivery, redactor, environ)

        _track(settings, in_use.get("traces") if "traces" not in before else None)

    handle = Handle(
        loaded,
        own=own,
        others=[provider for provider in before.values() if provider not in own],
        exporters=sending,
        delivery=delivery,
        logger_provider=logger_provider if isinstance(logger_provider, LoggerProvider) else None,
        capture=capture,
        sampler=sampler,
    )
    if (sampler is not None or redactor is not None) and (settings.policy_file or settings.policy_url):
        handle._on_shutdown.append(_follow_policy(sampler, redactor, settings))
    if settings.sigterm_flush:
        finish_at_sigterm(handle.shutdown)
    # Registered after everything else that was imported so far, so it runs before it; logs of the application's own
    # handlers, registered later still, are captured.
    atexit.register(handle.shutdown)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=handle._after_fork)
    handle._end_with_multiprocessing()
    handle._end_with_celery()
    return handle


def _set_up() -> dict[Signal, Provider]:
    """The SDK's providers that are global by now, in the order in which they end.

    Metrics last: the others' instruments may still count while they end.
    """
    found: dict[Signal, Any] = {
        "logs": logs_api.get_logger_provider(),
        "traces": trace_api.get_tracer_provider(),
        "metrics": metrics_api.get_meter_provider(),
    }
    return {
        signal: provider
        for signal, provider in found.items()
        if isinstance(provider, (LoggerProvider, TracerProvider, MeterProvider))
    }


def _from_file(path: str) -> None:
    """Set up providers as `OTEL_CONFIG_FILE` describes them."""
    try:
        compat.configure_from_file(path)
    except ImportError as error:
        if (error.name or "").startswith("opentelemetry.configuration"):
            why = "opentelemetry-configuration is not installed"
        else:
            why = str(error)
        errors.warn(errors.NOT_LOADED, f"OTEL_CONFIG_FILE={path}: {why}")
    except Exception as error:  # noqa: BLE001 - a file that cannot be used must not stop the application
        errors.warn(errors.NOT_LOADED, f"OTEL_CONFIG_FILE={path}: {error}")


def _logs(resource: Resource, _: Sequence[Any], settings: Settings, __: Redactor | None) -> Provider:
    # Its processors follow when the sampler is there to stand before them.
    provider = compat.logger_provider(resource=resource, shutdown_on_exit=False)
    logs_api.set_logger_provider(provider)
    return provider


def _delivery(settings: Settings, resource: Resource, environ: Mapping[str, str]) -> Delivery | None:
    """How OTLP leaves; None where OpenTelemetry's own exporters are asked for."""
    if not settings.spool:
        return None
    name = str(resource.attributes.get("service.name", "unknown_service"))
    return Delivery(settings, service_folder(settings, name, environ), service=name, environ=environ)


def _report(
    provider: Provider | None, delivery: Delivery | None, redactor: Redactor | None, environ: Mapping[str, str]
) -> None:
    """Make the metrics of the pipeline itself."""
    if not isinstance(provider, MeterProvider):
        return
    if redactor is not None:
        count_replacements(redactor, provider)
    if delivery is not None:
        delivery.report(provider, sdk_names=not _upstream_reports(environ))


def _upstream_reports(environ: Mapping[str, str]) -> bool:
    """Whether exporters of OpenTelemetry's own give metrics about themselves, under the names we would take."""
    wanted = environ.get("OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED", "").strip().lower() == "true"
    signals: tuple[Signal, ...] = ("traces", "logs")
    return wanted and any(name in PROTOCOLS.values() for signal in signals for name in names(signal, environ))


def _before_all(
    to: Sequence[LogRecordExporter],
    sampler: LogSampler | None,
    settings: Settings,
    recorder: FlightRecorder | None,
    redactor: Redactor | None,
) -> LogRecordProcessor:
    """One processor for all log exporters. The sampler stands before all at once: each record is decided once.

    Redaction comes after it, so that only what is kept is looked at, and before every queue and disk.
    """
    processors = [_log_processor(exporter, settings, redactor) for exporter in to]
    export = processors[0] if len(processors) == 1 else Processors(processors)
    return PatternSamplingProcessor(export, sampler, recorder) if sampler is not None else export


def _log_processor(exporter: LogRecordExporter, settings: Settings, redactor: Redactor | None) -> LogRecordProcessor:
    if isinstance(exporter, WeirLogExporter):
        if redactor is None:
            return SpoolLogProcessor(exporter.delivery, settings.shutdown_timeout)
        return SpoolLogProcessor(exporter.delivery, settings.shutdown_timeout, log_encoder(redactor))
    lanes = LogLanes(exporter)
    return lanes if redactor is None else RedactingLogProcessor(lanes, redactor)


def _span_processor(exporter: SpanExporter, redactor: Redactor | None) -> SpanProcessor:
    # Kept when it ends, not in batches: so the death of the process takes none.
    if isinstance(exporter, WeirSpanExporter):
        if redactor is None:
            return SpoolSpanProcessor(exporter.delivery)
        return SpoolSpanProcessor(exporter.delivery, encode=span_encoder(redactor))
    batches = BatchSpanProcessor(exporter)
    return batches if redactor is None else RedactingSpanProcessor(batches, redactor)


def _traces(resource: Resource, _: Sequence[Any], settings: Settings, __: Redactor | None) -> Provider:
    # Its processors follow, as others have to meet the tail among them.
    sampler = compat.sampler_from_environment()
    provider = compat.tracer_provider(
        # Around the one that decides: what a call cost is counted whether its span leaves or not.
        sampler=GenAISampler(sampler) if settings.genai else sampler,
        id_generator=compat.id_generator_from_environment(),
        resource=resource,
        shutdown_on_exit=False,
    )
    trace_api.set_tracer_provider(provider)
    return provider


def _export_spans(
    provider: Provider,
    to: Sequence[SpanExporter],
    settings: Settings,
    recorder: FlightRecorder | None,
    redactor: Redactor | None,
) -> TailSamplingProcessor | None:
    """Let finished spans go to their exporters, through what stands before all of them at once: it sees each span once.

    Returns:
        The tail, where there is one.
    """
    # Only where it is asked for: the start of the others need not wait for it.
    if recorder is not None or settings.trace_tail:
        from otelweir.pipeline.sample.spans.otel import FlightSpanProcessor, TailSamplingProcessor

    assert isinstance(provider, TracerProvider)
    if recorder is not None and not settings.trace_tail:
        provider.add_span_processor(FlightSpanProcessor(recorder))
    if not to:
        # No span leaves; what calls to models cost is a metric all the same.
        if settings.genai:
            provider.add_span_processor(GenAISpanProcessor(SpanProcessor(), settings))
        return None
    # Before the tail, which keeps spans in memory for up to a minute; then not again behind it.
    behind = None if settings.trace_tail else redactor
    processors = [_span_processor(exporter, behind) for exporter in to]
    export = processors[0]
    if len(processors) > 1:
        export = several = SynchronousMultiSpanProcessor()  # type: ignore[no-untyped-call]
        for processor in processors:
            several.add_span_processor(processor)
    tail = None
    if settings.trace_tail:
        export = tail = TailSamplingProcessor(export, settings, decided=recorder.decided if recorder else None)
        if recorder is not None:
            recorder.held_by_tail = True
        if redactor is not None:
            export = RedactingSpanProcessor(tail, redactor)
    # Before the tail, which has to see what a trace cost.
    provider.add_span_processor(GenAISpanProcessor(export, settings) if settings.genai else export)
    return tail


def _report_traces(
    settings: Settings, tail: TailSamplingProcessor | None, in_use: Mapping[Signal, Any], *, ours: bool
) -> None:
    """Count what the sampler and the tail decide, and tell the tail what is logged about its traces."""
    logs, traces, meters = (in_use.get(signal) for signal in ("logs", "traces", "metrics"))
    head = traces.sampler if isinstance(traces, TracerProvider) else None
    head = head.inner if isinstance(head, GenAISampler) else head
    if tail is None and "otelweir.pipeline.sample.spans.otel" not in sys.modules:
        return
    from otelweir.pipeline.sample.spans.otel import EvaluationProcessor, WeirSampler, count_refused, count_traces

    if isinstance(meters, MeterProvider):
        if tail is not None:
            count_traces(tail, meters)
        if isinstance(head, WeirSampler):
            count_refused(head, meters)
    if tail is not None and settings.trace_tail_score is not None and ours and isinstance(logs, LoggerProvider):
        logs.add_log_record_processor(EvaluationProcessor(tail, settings.trace_tail_score_attribute))


def _recorder(settings: Settings) -> FlightRecorder | None:
    """Where log records wait that are not kept; None where none shall."""
    if settings.flight_recorder == "off":
        return None
    # Only where it is asked for, as above.
    from otelweir.pipeline.sample.logs.flight import FlightRecorder

    return FlightRecorder(
        records=settings.flight_recorder_records,
        rings=settings.flight_recorder_traces,
        per_second=settings.flight_recorder_per_second,
        whole_traces=settings.flight_recorder == "traces",
    )


def _metrics(resource: Resource, to: Sequence[Any], settings: Settings, redactor: Redactor | None) -> Provider:
    readers = [_reader(exporter, redactor) for exporter in to]
    provider = compat.meter_provider(resource=resource, metric_readers=readers, shutdown_on_exit=False)
    metrics_api.set_meter_provider(provider)
    return provider


_BUILD: Final[Mapping[Signal, Callable[[Resource, Sequence[Any], Settings, Redactor | None], Provider]]] = {
    "logs": _logs,
    "traces": _traces,
    "metrics": _metrics,
}


def _reader(exporter: MetricExporter | MetricReader, redactor: Redactor | None) -> MetricReader:
    if isinstance(exporter, MetricReader):
        if redactor is not None:
            compat.before_reader(exporter, MetricRedaction(redactor.of("metrics")))
        return exporter
    if redactor is not None:
        exporter = RedactingMetricExporter(exporter, redactor, compat.metric_preferences(exporter))
    return PeriodicExportingMetricReader(exporter)


def _sampler(settings: Settings) -> LogSampler | None:
    """The sampler; None where nothing can turn sampling on."""
    if settings.log_sampling == "off" and not settings.policy_file and not settings.policy_url:
        return None
    return LogSampler.of(settings)


def _follow_policy(sampler: LogSampler | None, redactor: Redactor | None, settings: Settings) -> Callable[[], object]:
    """Let the policy's file and URL decide from now on; gives what ends that."""
    # Only here: it brings pydantic, which a service without a policy need not wait for.
    from otelweir.distro.policy_sections import admit_sections
    from otelweir.pipeline.sample.logs.policy_source import PolicySource

    admit_sections()

    def apply(rules: Rules) -> None:
        if redactor is not None:
            redactor.apply(rules.redact)
        if sampler is not None:
            sampler.apply(rules)

    source = PolicySource.of(
        Rules.of(settings),
        apply,
        file=settings.policy_file,
        url=settings.policy_url,
        key=settings.policy_key,
        refresh_s=settings.policy_refresh,
        cache=settings.policy_cache,
        quiet=suppress_instrumentation,
    )
    source.start()
    return source.stop


def _add_processors(provider: LoggerProvider, export: LogRecordProcessor, settings: Settings) -> None:
    # First: what they do to a record is there when the other sees it.
    provider.add_log_record_processor(scoped.TrackLogProcessor())
    if settings.genai:
        provider.add_log_record_processor(GenAILogProcessor(settings))
    provider.add_log_record_processor(export)


def _track(settings: Settings, tracer_provider: Provider | None) -> None:
    """Let what is tracked, and `otelweir.context`, do what the settings say.

    Args:
        settings: The settings.
        tracer_provider: Where the spans come from, if we may add to it.
    """
    limits.content = settings.track_content
    limits.max_bytes = settings.track_max_bytes
    limits.baggage = settings.context_baggage
    if isinstance(tracer_provider, TracerProvider):
        tracer_provider.add_span_processor(scoped.TrackProcessor())
    if settings.context_threads:
        threads.install()


def _bridge(capture: LogCapture, provider: LoggerProvider) -> None:
    """Capture Python's logging, and silence the handlers that would send the same records again."""
    compat.silence_other_log_handlers(
        lambda other: logging_bridge.installed() and (other is provider or _is_global(other, provider)),
        logging_bridge.deafen,
    )
    logging_bridge.install(capture)


def _is_global(other: object, provider: LoggerProvider) -> bool:
    return not isinstance(other, LoggerProvider) and logs_api.get_logger_provider() is provider


def _wants_code(loaded: Loaded, environ: Mapping[str, str]) -> bool:
    """Whether records carry `code.*`: our setting decides, else what OpenTelemetry's own variable says."""
    upstream = environ.get("OTEL_PYTHON_LOG_CODE_ATTRIBUTES", "").strip().lower()
    if "log_code_attributes" not in loaded.origins and upstream in ("true", "false"):
        return upstream == "true"
    return loaded.settings.log_code_attributes


def _logging_is_disabled(environ: Mapping[str, str]) -> bool:
    """Whether OpenTelemetry's own variables turn the capture of Python's logging off."""
    disabled = {name.strip() for name in environ.get("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", "").split(",")}
    return bool(disabled & {"logging", "*"}) or (
        environ.get("OTEL_PYTHON_LOG_AUTO_INSTRUMENTATION", "").strip().lower() == "false"
    )


def _own_attributes() -> dict[str, str]:
    return {"telemetry.distro.name": "otelweir", "telemetry.distro.version": importlib.metadata.version("otelweir")}


def _stated_in_code(loaded: Loaded) -> dict[str, Any]:
    """What `configure()` says of the deployment; what variables say, the resource detector finds."""
    given = stated(loaded.settings)
    return {
        STATED[name]: given[STATED[name]]
        for name, origin in loaded.origins.items()
        if origin == "code" and name in STATED
    }


@contextmanager
def _defaults() -> Iterator[None]:
    """Let the distribution's defaults stand in the environment while the SDK reads it, and no longer.

    A child process with another set of packages must not inherit them.
    """
    added = {name: value for name, value in OTEL_DEFAULTS.items() if not os.environ.get(name)}
    before = {name: os.environ.get(name) for name in added}
    os.environ.update(added)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
