"""Instrumentation of one client, or one handler, without patching its class."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar

import wrapt

from otelweir import errors
from otelweir.distro import compat

if TYPE_CHECKING:
    from langchain_core.callbacks import BaseCallbackHandler
    from opentelemetry._logs import LoggerProvider
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

Client = TypeVar("Client")
_MARK: Final = "_weir_tracked"
_COPIES: Final = ("copy", "with_options")


def track_openai(
    client: Client,
    *,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
    logger_provider: LoggerProvider | None = None,
) -> Client:
    """Instrument one client of OpenAI, and its copies (`with_options`), without patching the library.

    Args:
        client: `OpenAI`, `AsyncOpenAI`, or a subclass such as `AzureOpenAI`.
        tracer_provider: Where its spans go; None for the global one.
        meter_provider: Where its metrics go; None for the global one.
        logger_provider: Where its events go; None for the global one.

    Returns:
        The same client. Where OpenAI is instrumented as a whole, or this client is already, nothing is changed.

    Raises:
        MissingExtra: OpenTelemetry's instrumentation is not installed.
        TypeError: It is no client of OpenAI.
    """
    try:
        import openai

        wrappers = compat.openai_wrappers(tracer_provider, meter_provider, logger_provider)
    except ImportError:
        raise errors.MissingExtra("openai", "opentelemetry-instrumentation-genai-openai") from None
    if not isinstance(client, (openai.OpenAI, openai.AsyncOpenAI)):
        raise TypeError(f"a client of openai is due, not {type(client).__name__}")
    if wrappers is not None:
        _track(client, wrappers["async" if isinstance(client, openai.AsyncOpenAI) else "sync"])
    return client


def track_anthropic(
    client: Client,
    *,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
    logger_provider: LoggerProvider | None = None,
) -> Client:
    """Instrument one client of Anthropic, and its copies (`with_options`), without patching the library.

    Args:
        client: `Anthropic`, `AsyncAnthropic`, or a subclass such as `AnthropicBedrock`.
        tracer_provider: Where its spans go; None for the global one.
        meter_provider: Where its metrics go; None for the global one.
        logger_provider: Where its events go; None for the global one.

    Returns:
        The same client. Where Anthropic is instrumented as a whole, or this client is already, nothing is changed.

    Raises:
        MissingExtra: OpenTelemetry's instrumentation is not installed.
        TypeError: It is no client of Anthropic.
    """
    try:
        import anthropic

        wrappers = compat.anthropic_wrappers(tracer_provider, meter_provider, logger_provider)
    except ImportError:
        raise errors.MissingExtra("anthropic", "opentelemetry-instrumentation-genai-anthropic") from None
    kinds = {base.__name__ for base in type(getattr(client, "messages", None)).__mro__}
    if not type(client).__module__.startswith("anthropic.") and not isinstance(
        client, (anthropic.Anthropic, anthropic.AsyncAnthropic)
    ):
        raise TypeError(f"a client of anthropic is due, not {type(client).__name__}")
    if wrappers is not None:
        _track(client, wrappers["async" if "AsyncAPIResource" in kinds else "sync"])
    return client


def langchain_handler(
    *,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
    logger_provider: LoggerProvider | None = None,
) -> BaseCallbackHandler:
    """A callback handler that traces what LangChain and LangGraph do, for `config={"callbacks": [...]}`.

    Where LangChain is instrumented as a whole, this is the handler that does it, so that nothing is traced twice.

    Args:
        tracer_provider: Where its spans go; None for the global one.
        meter_provider: Where its metrics go; None for the global one.
        logger_provider: Where its events go; None for the global one.

    Raises:
        MissingExtra: OpenTelemetry's instrumentation is not installed.
    """
    try:
        return compat.langchain_handler(tracer_provider, meter_provider, logger_provider)
    except ImportError:
        raise errors.MissingExtra("langchain", "opentelemetry-instrumentation-genai-langchain") from None


def _track(client: Any, wrappers: Mapping[str, Callable[..., Any]]) -> None:
    """Wrap the methods of one client. The resources of a client are made once and stay, so they can carry them."""
    if vars(client).get(_MARK):
        return
    setattr(client, _MARK, True)
    for path, wrapper in wrappers.items():
        for owner, name in _at(client, path):
            setattr(owner, name, wrapt.FunctionWrapper(getattr(owner, name), wrapper))

    def copied(wrapped: Callable[..., Any], _: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        copy = wrapped(*args, **kwargs)
        _track(copy, wrappers)
        return copy

    for name in _COPIES:
        setattr(client, name, wrapt.FunctionWrapper(getattr(client, name), copied))


def _at(client: Any, path: str) -> Iterator[tuple[Any, str]]:
    """Whose attribute a path such as `chat.completions.create` leads to; nothing where this version has none."""
    *way, name = path.split(".")
    owner = client
    for step in way:
        owner = getattr(owner, step, None)
    if callable(getattr(owner, name, None)):
        yield owner, name
