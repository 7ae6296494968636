"""LangChain over OpenAI: one span a call, and one cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest
from langchain_openai import ChatOpenAI
from opentelemetry.instrumentation.genai.langchain import LangChainInstrumentor
from opentelemetry.instrumentation.genai.openai import OpenAIInstrumentor
from pydantic import SecretStr

import otelweir
from otelweir.demo.provider import ModelProvider

if TYPE_CHECKING:
    from tests.genai.conftest import Sdk


@pytest.fixture
def instrument(sdk: Sdk) -> Iterator[Callable[[type], None]]:
    active = []

    def start(kind: type) -> None:
        active.append(kind())
        active[-1].instrument(**sdk.providers)

    yield start
    for instrumentor in active:
        instrumentor.uninstrument()


def model(provider: ModelProvider) -> ChatOpenAI:
    return ChatOpenAI(model="gpt-4o-mini", base_url=provider.openai_url, api_key=SecretStr("none"), stream_usage=True)


@pytest.mark.parametrize("how", ["invoke", "stream", "ainvoke", "astream"])
@pytest.mark.parametrize("whole", ["langchain", "langchain and openai", "openai", "nothing"])
async def test_a_call_is_one_span_and_costs_once(
    provider: ModelProvider, sdk: Sdk, instrument: Callable[[type], None], whole: str, how: str
) -> None:
    """Whatever is instrumented as a whole; where LangChain is not, its handler is given to the call."""
    if "openai" in whole:
        instrument(OpenAIInstrumentor)
    if "langchain" in whole:
        instrument(LangChainInstrumentor)
    handler = otelweir.langchain_handler(**sdk.providers)
    config = {"callbacks": [handler]}
    llm = model(provider)
    match how:
        case "invoke":
            llm.invoke("hi", config)  # type: ignore[arg-type]
        case "stream":
            list(llm.stream("hi", config))  # type: ignore[arg-type]
        case "ainvoke":
            await llm.ainvoke("hi", config)  # type: ignore[arg-type]
        case "astream":
            [chunk async for chunk in llm.astream("hi", config)]  # type: ignore[arg-type]
    (call,) = sdk.calls
    cost = (call.attributes or {})["weir.cost.amount"]
    assert cost
    assert "weir.cost.incomplete" not in (call.attributes or {})
    assert sdk.metric("weir.genai.cost") == {("openai", "gpt-4o-mini", "chat"): pytest.approx(cost)}


def test_a_batch_is_a_call_for_each_of_its_inputs(provider: ModelProvider, sdk: Sdk) -> None:
    handler = otelweir.langchain_handler(**sdk.providers)
    with sdk.tracer.start_as_current_span("batch"):
        model(provider).batch(["one", "two", "three"], {"callbacks": [handler]})
    assert len(sdk.calls) == len(provider.asked) == 3
    (root,) = [span for span in sdk.spans if span.name == "batch"]
    assert (root.attributes or {})["weir.trace.llm.calls"] == 3
