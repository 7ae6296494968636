"""The whole wiring, in one place: from the environment and `configure()` to running providers."""

from __future__ import annotations

import atexit
import importlib.metadata
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from opentelemetry import _logs as logs_api
from opentelemetry import metrics as metrics_api
from opentelemetry import trace as trace_api
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricExporter, MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from otelweir import errors
from otelweir.distro import compat
from otelweir.distro.defaults import OTEL_DEFAULTS
from otelweir.distro.exporters import Target, exporters
from otelweir.distro.keeper import Keeper
from otelweir.distro.termination import finish_at_sigterm, leave_sigterm
from otelweir.pipeline.capture import logging_bridge
from otelweir.pipeline.capture.otel import LogCapture
from otelweir.pipeline.capture.resource import STATED, stated
from otelweir.pipeline.sample.logs.otel import PatternSamplingProcessor, Processors, count_records, send_rollups
from otelweir.pipeline.sample.logs.rules import Rules
from otelweir.pipeline.sample.logs.sampler import LogSampler
from otelweir.settings import Loaded, Settings

_NEVER_S: Final = 10 * 365 * 86400.0


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
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        logger_provider: LoggerProvider | None = None,
        capture: LogCapture | None = None,
        sampler: LogSampler | None = None,
        keeper: Keeper | None = None,
    ) -> None:
        self.settings = loaded
        self.capture = capture
        self.sampler = sampler
        self._tracer_provider = tracer_provider
        self._meter_provider = meter_provider
        self._logger_provider = logger_provider
        self._keeper = keeper
        self._on_shutdown: list[Callable[[], object]] = []
        self.ended = False

    def __repr__(self) -> str:
        state = "ended" if self.ended else "running"
        return f"<Handle {state}, sampler {self.sampler!r}>"

    def flush(self, timeout_s: float = 10.0) -> bool:
        """Send what is waiting, and wait for it.

        Args:
            timeout_s: How long to wait, over all signals.

        Returns:
            Whether every exporter took everything in time.
        """
        if self.ended:
            return True
        results: list[bool] = []

        def work() -> None:
            deadline = time.monotonic() + timeout_s
            results.extend(
                provider.force_flush(max(1, int((deadline - time.monotonic()) * 1000))) is not False
                for provider in self._providers()
            )

        done = self._keeper.run(work, timeout_s) if self._keeper else _called(work)
        return done and all(results)

    def shutdown(self, timeout_s: float | None = None) -> bool:
        """Send the last roll-ups and what is waiting, then stop. Called again, does nothing.

        Args:
            timeout_s: How long it may take; None for `WEIR_SHUTDOWN_TIMEOUT`.

        Returns:
            Whether all of it was done in time.
        """
        if self.ended:
            return True
        self.ended = True
        logging_bridge.stop()
        for end in self._on_shutdown:
            end()

        def work() -> None:
            self.send_rollups()
            for provider in self._providers():
                provider.shutdown()

        limit_s = self.settings.settings.shutdown_timeout if timeout_s is None else timeout_s
        done = self._keeper.run(work, limit_s) if self._keeper else _called(work)
        if self._keeper:
            self._keeper.stop()
        atexit.unregister(self.shutdown)
        return done

    def send_rollups(self) -> None:
        """Send the exact counts of the log patterns since the last time."""
        if self.sampler is not None and self._logger_provider is not None:
            send_rollups(self.sampler, self._logger_provider)

    def _providers(self) -> Iterator[Any]:
        # Metrics last: the others' instruments may still count while they end.
        return filter(None, (self._logger_provider, self._tracer_provider, self._meter_provider))

    def _after_fork(self) -> None:
        if self.ended:
            return
        if self.capture is not None:
            self.capture.after_fork()
        if self.sampler is not None:
            self.sampler.after_fork()
        if self._keeper is not None:
            self._keeper.after_fork()
        # A child of multiprocessing ends without `atexit`; its own finalizers run, and this one last.
        util = sys.modules.get("multiprocessing.util")
        if util is not None:
            util.register_after_fork(self, lambda handle: util.Finalize(None, handle.shutdown, exitpriority=-100))


def assemble(
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
        resource_attributes: Win over everything that is detected, except `OTEL_RESOURCE_ATTRIBUTES`.
    """
    settings = loaded.settings
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return Handle(loaded)
    with _defaults():
        environ = os.environ
        if (path := compat.config_file()) is not None:
            tracer_provider, meter_provider, logger_provider, log_processors = _from_file(path)
        else:
            resource = Resource.create({**_own_attributes(), **_stated_in_code(loaded), **(resource_attributes or {})})
            compat.run_opamp("pre_sdk_init_function", resource)

            tracer_provider = compat.tracer_provider(
                sampler=compat.sampler_from_environment(),
                id_generator=compat.id_generator_from_environment(),
                resource=resource,
                shutdown_on_exit=False,
            )
            for exporter in exporters("traces", environ, target):
                tracer_provider.add_span_processor(BatchSpanProcessor(exporter))

            readers = [_reader(exporter) for exporter in exporters("metrics", environ, target)]
            meter_provider = compat.meter_provider(resource=resource, metric_readers=readers, shutdown_on_exit=False)

            logger_provider = compat.logger_provider(resource=resource, shutdown_on_exit=False)
            log_processors = [BatchLogRecordProcessor(exporter) for exporter in exporters("logs", environ, target)]

            _make_global(tracer_provider, meter_provider, logger_provider)
            compat.run_opamp("post_sdk_init_function", resource)

        sampler = _sampler(settings) if log_processors else None
        # The sampler stands before all exporters at once: each record is decided once.
        if log_processors and logger_provider is not None and log_processors is not _CONFIGURED:
            export = log_processors[0] if len(log_processors) == 1 else Processors(log_processors)
            logger_provider.add_log_record_processor(
                PatternSamplingProcessor(export, sampler) if sampler is not None else export
            )
        if sampler is not None and meter_provider is not None:
            count_records(sampler, meter_provider)

        capture = None
        if log_processors and logger_provider is not None:
            capture = LogCapture(logger_provider, sampler, code=_wants_code(loaded, environ))
            if settings.log_capture and not _logging_is_disabled(environ):
                _bridge(capture, logger_provider)

    keeper = Keeper(
        lambda: handle.send_rollups(),  # noqa: PLW0108 - the handle comes after its keeper
        settings.log_rollup_interval if sampler else _NEVER_S,
    )
    handle = Handle(
        loaded,
        tracer_provider=tracer_provider,
        meter_provider=meter_provider,
        logger_provider=logger_provider,
        capture=capture,
        sampler=sampler,
        keeper=keeper,
    )
    if sampler is not None and (settings.policy_file or settings.policy_url):
        handle._on_shutdown.append(_follow_policy(sampler, settings))
    if settings.sigterm_flush and finish_at_sigterm(handle.shutdown):
        handle._on_shutdown.append(leave_sigterm)
    # Registered after everything else that was imported so far, so it runs before it; logs of the application's own
    # handlers, registered later still, are captured.
    atexit.register(handle.shutdown)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=handle._after_fork)
    return handle


_CONFIGURED: Final[list[Any]] = [None]
"""Stands for the processors of a configuration file, which has wired them."""


def _from_file(path: str) -> tuple[TracerProvider | None, MeterProvider | None, LoggerProvider | None, list[Any]]:
    """Providers as `OTEL_CONFIG_FILE` describes them."""
    try:
        compat.configure_from_file(path)
    except ImportError:
        errors.warn(
            errors.NOT_LOADED,
            "OTEL_CONFIG_FILE is set but opentelemetry-configuration is not installed: pip install it",
        )
        return None, None, None, []
    tracer, meter, logger = (
        trace_api.get_tracer_provider(),
        metrics_api.get_meter_provider(),
        logs_api.get_logger_provider(),
    )
    return (
        tracer if isinstance(tracer, TracerProvider) else None,
        meter if isinstance(meter, MeterProvider) else None,
        logger if isinstance(logger, LoggerProvider) else None,
        _CONFIGURED,
    )


def _make_global(tracer: TracerProvider, meter: MeterProvider, logger: LoggerProvider) -> None:
    """Make the providers global, as far as nobody else was first."""
    taken = [
        signal
        for signal, current, kind in (
            ("traces", trace_api.get_tracer_provider(), TracerProvider),
            ("metrics", metrics_api.get_meter_provider(), MeterProvider),
            ("logs", logs_api.get_logger_provider(), LoggerProvider),
        )
        if isinstance(current, kind)
    ]
    if taken:
        errors.warn(errors.ALREADY_CONFIGURED, f"the providers of {', '.join(taken)} are set and stay as they are")
    if "traces" not in taken:
        trace_api.set_tracer_provider(tracer)
    if "metrics" not in taken:
        metrics_api.set_meter_provider(meter)
    if "logs" not in taken:
        logs_api.set_logger_provider(logger)


def _reader(exporter: MetricExporter | MetricReader) -> MetricReader:
    return exporter if isinstance(exporter, MetricReader) else PeriodicExportingMetricReader(exporter)


def _sampler(settings: Settings) -> LogSampler | None:
    """The sampler; None where nothing can turn sampling on."""
    if settings.log_sampling == "off" and not settings.policy_file and not settings.policy_url:
        return None
    return LogSampler.of(settings)


def _follow_policy(sampler: LogSampler, settings: Settings) -> Callable[[], object]:
    """Let the policy's file and URL decide from now on; gives what ends that."""
    # Only here: it brings pydantic, which a service without a policy need not wait for.
    from otelweir.pipeline.sample.logs.policy_source import PolicySource

    source = PolicySource.of(
        Rules.of(settings),
        sampler.apply,
        file=settings.policy_file,
        url=settings.policy_url,
        key=settings.policy_key,
        refresh_s=settings.policy_refresh,
        cache=settings.policy_cache,
        quiet=suppress_instrumentation,
    )
    source.start()
    return source.stop


def _bridge(capture: LogCapture, provider: LoggerProvider) -> None:
    """Capture Python's logging, and silence the handlers that would send the same records again."""
    deaf: set[type] = set()
    compat.silence_other_log_handlers(
        lambda other: logging_bridge.installed() and (other is provider or _is_global(other, provider)), deaf.add
    )
    logging_bridge.install(capture, deaf)


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


def _called(work: Callable[[], object]) -> bool:
    work()
    return True
