"""Every private name of OpenTelemetry that Weir uses, each with its reason.

When a name here becomes public, or goes, this is the only file to change.
"""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import wrapt
from opentelemetry._logs import LoggerProvider as LoggerProviderApi
from opentelemetry.sdk import _configuration as configuration
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricExporter, MetricReader, MetricsData
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import Sampler

if TYPE_CHECKING:
    from langchain_core.callbacks import BaseCallbackHandler


def sampler_from_environment() -> Sampler | None:
    """The sampler that `OTEL_TRACES_SAMPLER` names; None for the SDK's own choice.

    Private: the look-up of samplers by entry point exists only in the SDK's configurator.
    """
    return configuration._import_sampler(configuration._get_sampler())


def id_generator_from_environment() -> IdGenerator:
    """The id generator that `OTEL_PYTHON_ID_GENERATOR` names. Private for the same reason."""
    return configuration._import_id_generator(configuration._get_id_generator())


def tracer_provider(**arguments: Any) -> TracerProvider:
    """A tracer provider with the configurator that `OTEL_PYTHON_TRACER_CONFIGURATOR` names.

    Private: configurators are an experimental part of the specification, given as `_tracer_configurator`.
    """
    configurator = configuration._import_tracer_configurator(configuration._get_tracer_configurator())
    return TracerProvider(**arguments, _tracer_configurator=configurator)


def meter_provider(**arguments: Any) -> MeterProvider:
    """As `tracer_provider`."""
    configurator = configuration._import_meter_configurator(configuration._get_meter_configurator())
    return MeterProvider(**arguments, _meter_configurator=configurator)


def logger_provider(**arguments: Any) -> LoggerProvider:
    """As `tracer_provider`."""
    configurator = configuration._import_logger_configurator(configuration._get_logger_configurator())
    return LoggerProvider(**arguments, _logger_configurator=configurator)


def metric_preferences(exporter: MetricExporter) -> tuple[Any, Any]:
    """The temporality and the aggregation that an exporter wants, as its base class takes them.

    Private: an exporter states them to the constructor of its base class, and only readers may ask.
    """
    return exporter._preferred_temporality, exporter._preferred_aggregation


def before_reader(reader: MetricReader, change: Callable[[MetricsData], MetricsData]) -> None:
    """Let a reader that is asked for metrics, as Prometheus' is, get them changed.

    Private: `_receive_metrics` is what readers override, and documented for that; nothing can stand before one.
    """
    receive = reader._receive_metrics

    def changed(metrics_data: MetricsData, *args: Any, **kwargs: Any) -> None:
        receive(change(metrics_data), *args, **kwargs)

    reader._receive_metrics = changed  # type: ignore[method-assign]


def run_opamp(when: str, resource: Resource) -> None:
    """Call the OpAMP hook that a package may provide. Private: the entry point group is in development."""
    start = configuration._import_opamp(when)  # type: ignore[arg-type]
    if start is not None:
        start(resource)


def silence_other_log_handlers(
    ours: Callable[[LoggerProviderApi], bool], silent: Callable[[type, Callable[[Any], bool]], None]
) -> None:
    """Keep OpenTelemetry's logging handlers from sending what the bridge sends already.

    Private: the handlers keep their provider in `_logger_provider`, and nothing public tells which one it is.

    Args:
        ours: Whether records for a provider come from the bridge.
        silent: Gets each class whose handlers may have become silent, and the question whether one has.
    """

    def quiet(wrapped: Callable[..., None], instance: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        if not ours(instance._logger_provider):
            wrapped(*args, **kwargs)

    def patch(module: Any) -> None:
        handler = getattr(module, "LoggingHandler", None)
        if handler is None or isinstance(handler.emit, wrapt.FunctionWrapper):
            return
        handler.emit = wrapt.FunctionWrapper(handler.emit, quiet)
        silent(handler, lambda instance: ours(instance._logger_provider))

    for name in ("opentelemetry.sdk._logs._internal", "opentelemetry.instrumentation.logging.handler"):
        wrapt.when_imported(name)(patch)


def configure_from_file(path: str) -> None:
    """Configure the SDK from a declarative configuration file.

    Public, but in the optional package `opentelemetry-configuration`.

    Raises:
        ImportError: The package is not installed.
    """
    from opentelemetry.configuration import configure_sdk, load_config_file  # type: ignore[import-not-found]

    configure_sdk(load_config_file(path))


def config_file() -> str | None:
    """The path in `OTEL_CONFIG_FILE`."""
    return os.environ.get("OTEL_CONFIG_FILE") or None


Wrappers = dict[str, dict[str, Callable[..., Any]]]
"""By `sync` and `async`, by the path of a client's method, a wrapper as `wrapt.FunctionWrapper` takes it."""


def openai_wrappers(*providers: Any) -> Wrappers | None:
    """What traces the methods of a client of OpenAI; None where the library is instrumented as a whole.

    Private: the instrumentor wraps classes, with wrappers in its module `patch` that it does not document.

    Args:
        providers: Of tracers, meters and loggers; None each for the global one.

    Raises:
        ImportError: The instrumentation is not installed.
    """
    from opentelemetry.instrumentation.genai.openai import OpenAIInstrumentor, patch, patch_responses

    if OpenAIInstrumentor().is_instrumented_by_opentelemetry:
        return None
    handler = _telemetry_handler("openai", *providers)
    chat, a_chat = patch.chat_completions_create_v_new(handler), patch.async_chat_completions_create_v_new(handler)
    made, a_made = patch_responses.responses_create(handler), patch_responses.async_responses_create(handler)
    return {
        "sync": {
            "chat.completions.create": chat,
            "chat.completions.parse": chat,
            "beta.chat.completions.create": chat,
            "beta.chat.completions.parse": chat,
            "embeddings.create": patch.embeddings_create(handler),
            "responses.create": made,
            "responses.parse": made,
            "responses.stream": patch_responses.responses_stream(handler),
            "responses.retrieve": patch_responses.responses_retrieve(handler),
        },
        "async": {
            "chat.completions.create": a_chat,
            "chat.completions.parse": a_chat,
            "beta.chat.completions.create": a_chat,
            "beta.chat.completions.parse": a_chat,
            "embeddings.create": patch.async_embeddings_create(handler),
            "responses.create": a_made,
            "responses.parse": a_made,
            "responses.stream": patch_responses.async_responses_stream(handler),
            "responses.retrieve": patch_responses.async_responses_retrieve(handler),
        },
    }


def anthropic_wrappers(*providers: Any) -> Wrappers | None:
    """As `openai_wrappers`, for Anthropic."""
    from opentelemetry.instrumentation.genai.anthropic import AnthropicInstrumentor, patch

    if AnthropicInstrumentor().is_instrumented_by_opentelemetry:
        return None
    handler = _telemetry_handler("anthropic", *providers)
    create, stream = patch.messages_create(handler), patch.messages_stream(handler)
    a_create, a_stream = patch.async_messages_create(handler), patch.async_messages_stream(handler)
    paths = ("messages", "beta.messages")
    return {
        "sync": {f"{path}.{name}": create for path in paths for name in ("create", "parse")}
        | {f"{path}.stream": stream for path in paths},
        "async": {f"{path}.{name}": a_create for path in paths for name in ("create", "parse")}
        | {f"{path}.stream": a_stream for path in paths},
    }


def langchain_handler(*providers: Any) -> BaseCallbackHandler:
    """OpenTelemetry's callback handler for LangChain; the one that is active, where LangChain is instrumented.

    Private: the instrumentor keeps its handler to itself, and the class is not documented.

    Raises:
        ImportError: The instrumentation is not installed.
    """
    from opentelemetry.instrumentation.genai.langchain import LangChainInstrumentor
    from opentelemetry.instrumentation.genai.langchain.callback_handler import OpenTelemetryLangChainCallbackHandler

    active = LangChainInstrumentor()._callback_handler  # type: ignore[no-untyped-call]
    return active or OpenTelemetryLangChainCallbackHandler(_telemetry_handler("langchain", *providers))


def completion_hook() -> Any:
    """The hook that `OTEL_INSTRUMENTATION_GENAI_COMPLETION_HOOK` names; one that does nothing where there is none such.

    Public, but in the optional package `opentelemetry-util-genai`, which is in beta.
    """
    from opentelemetry.util.genai.completion_hook import load_completion_hook

    return load_completion_hook()


def _telemetry_handler(library: str, tracers: Any = None, meters: Any = None, loggers: Any = None) -> Any:
    from opentelemetry.util.genai.handler import TelemetryHandler

    from otelweir.distro.completions import completion_hook as redacted_hook

    package = f"opentelemetry.instrumentation.genai.{library}"
    return TelemetryHandler(
        tracers,
        meters,
        loggers,
        completion_hook=redacted_hook(),
        instrumentation_scope_name=package,
        instrumentation_scope_version=importlib.metadata.version(package.replace(".", "-")),
    )
