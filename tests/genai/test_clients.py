"""The real clients against a provider on this machine: one span a call, with its tokens and its cost."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import anthropic
import openai
import pydantic
import pytest
from opentelemetry.instrumentation.genai.openai import OpenAIInstrumentor

import otelweir
from otelweir.demo.provider import ModelProvider, Reply, ToolCall
from otelweir.pipeline.capture.track import otel as track_otel

if TYPE_CHECKING:
    from tests.genai.conftest import Sdk

Serve = Callable[..., ModelProvider]

ASK: dict[str, Any] = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}]}
ASK_CLAUDE: dict[str, Any] = {"model": "claude-haiku-4-5", "max_tokens": 99, "messages": ASK["messages"]}
STREAM: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}

CHAT_USAGE = {
    "prompt_tokens": 2000,
    "completion_tokens": 500,
    "total_tokens": 2500,
    "prompt_tokens_details": {"cached_tokens": 1000},
    "completion_tokens_details": {"reasoning_tokens": 100},
}
CHAT_COST = (1000 * 0.15 + 1000 * 0.075 + 500 * 0.60) / 1e6

CLAUDE_USAGE = {
    "input_tokens": 1000,
    "output_tokens": 500,
    "cache_creation_input_tokens": 2000,
    "cache_read_input_tokens": 4000,
}
CLAUDE_COST = (1000 * 1 + 2000 * 1.25 + 4000 * 0.1 + 500 * 5) / 1e6


def the_openai(provider: ModelProvider, sdk: Sdk, **options: Any) -> openai.OpenAI:
    client = openai.OpenAI(base_url=provider.openai_url, api_key="none", **options)
    return otelweir.track_openai(client, **sdk.providers)


def the_async_openai(provider: ModelProvider, sdk: Sdk) -> openai.AsyncOpenAI:
    return otelweir.track_openai(openai.AsyncOpenAI(base_url=provider.openai_url, api_key="none"), **sdk.providers)


def the_anthropic(provider: ModelProvider, sdk: Sdk) -> anthropic.Anthropic:
    client = anthropic.Anthropic(
        base_url=provider.url, api_key="none", open_telemetry={"tracer_provider": sdk.providers["tracer_provider"]}
    )
    return otelweir.track_anthropic(client, **sdk.providers)


class TestOpenAI:
    def test_a_call_has_its_tokens_and_its_cost(self, serve: Serve, sdk: Sdk) -> None:
        the_openai(serve(Reply("Hello.", usage=CHAT_USAGE)), sdk).chat.completions.create(**ASK)
        call = sdk.call()
        assert (call["gen_ai.usage.input_tokens"], call["gen_ai.usage.output_tokens"]) == (2000, 500)
        assert call["gen_ai.usage.cache_read.input_tokens"] == 1000
        assert call["gen_ai.usage.reasoning.output_tokens"] == 100
        assert call["weir.cost.amount"] == pytest.approx(CHAT_COST)
        assert call["weir.cost.input"] + call["weir.cost.output"] == pytest.approx(CHAT_COST)
        assert call["weir.cost.currency"] == "USD"
        assert call["weir.cost.source"].startswith("genai-prices ")
        assert "weir.cost.unknown_model" not in call
        assert sdk.metric("weir.genai.cost") == {("openai", "gpt-4o-mini", "chat"): pytest.approx(CHAT_COST)}
        assert sdk.metric("gen_ai.client.token.usage") == {("openai", "gpt-4o-mini", "chat"): 2500}

    def test_a_stream_has_them_too_and_when_it_began(self, serve: Serve, sdk: Sdk, content: None) -> None:
        client = the_openai(serve(Reply("How are you?", usage=CHAT_USAGE)), sdk)
        said = "".join(
            chunk.choices[0].delta.content or ""
            for chunk in client.chat.completions.create(**ASK, **STREAM)
            if chunk.choices
        )
        call = sdk.call()
        assert said == "How are you?"
        assert json.loads(call["gen_ai.output.messages"])[0]["parts"][0]["content"] == said
        assert call["gen_ai.response.time_to_first_chunk"] > 0
        assert call["weir.cost.amount"] == pytest.approx(CHAT_COST)

    async def test_async_calls_and_streams_do(self, serve: Serve, sdk: Sdk) -> None:
        client = the_async_openai(serve(*[Reply("Hi", usage=CHAT_USAGE)] * 2), sdk)
        await client.chat.completions.create(**ASK)
        async for _ in await client.chat.completions.create(**ASK, **STREAM):
            pass
        costs = [(span.attributes or {})["weir.cost.amount"] for span in sdk.calls]
        assert costs == [pytest.approx(CHAT_COST)] * 2

    @pytest.mark.parametrize("how", ["closed", "forgotten", "raised"])
    def test_a_stream_that_is_abandoned_ends_and_makes_up_no_cost(self, serve: Serve, sdk: Sdk, how: str) -> None:
        client = the_openai(serve(Reply("one two three")), sdk)
        stream = client.chat.completions.create(**ASK, **STREAM)
        next(iter(stream))
        if how == "closed":
            stream.close()
        elif how == "raised":
            with pytest.raises(LookupError), stream:
                raise LookupError
        del stream
        gc.collect()
        assert "weir.cost.amount" not in sdk.call()
        assert sdk.call()["weir.cost.incomplete"] is True

    def test_a_stream_that_breaks_off_ends_and_makes_up_no_cost(self, serve: Serve, sdk: Sdk) -> None:
        client = the_openai(serve(Reply("one two three", broken_after=2)), sdk)
        list(client.chat.completions.create(**ASK, **STREAM))
        assert "weir.cost.amount" not in sdk.call()
        assert sdk.call()["weir.cost.incomplete"] is True

    @pytest.mark.parametrize("asked", [True, False])
    def test_a_stream_that_is_not_asked_for_its_tokens_says_so(
        self, serve: Serve, sdk: Sdk, caplog: pytest.LogCaptureFixture, asked: bool
    ) -> None:
        client = the_openai(serve(Reply("one two three", usage=CHAT_USAGE)), sdk)
        list(client.chat.completions.create(**ASK, stream=True, stream_options={"include_usage": asked}))
        assert sdk.call().get("weir.cost.incomplete") == (None if asked else True)
        assert ("WEIR-GENAI-006" in caplog.text) is not asked

    def test_tools_are_on_the_span(self, serve: Serve, sdk: Sdk, content: None) -> None:
        tool: Any = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
        client = the_openai(serve(Reply(tools=(ToolCall("weather", {"city": "Oslo"}),))), sdk)
        client.chat.completions.create(**ASK, tools=[tool])
        (message,) = json.loads(sdk.call()["gen_ai.output.messages"])
        (part,) = message["parts"]
        assert (part["type"], part["name"], part["arguments"]) == ("tool_call", "weather", {"city": "Oslo"})
        assert message["finish_reason"] == "tool_call"

    def test_structured_output_is_a_call(self, serve: Serve, sdk: Sdk) -> None:
        client = the_openai(serve(Reply('{"number": 42}', usage=CHAT_USAGE)), sdk)
        parsed = client.chat.completions.parse(**ASK, response_format=Answer).choices[0].message.parsed
        assert parsed == Answer(number=42)
        assert sdk.call()["weir.cost.amount"] == pytest.approx(CHAT_COST)

    def test_embeddings_of_many_texts_are_one_call(self, serve: Serve, sdk: Sdk) -> None:
        client = the_openai(serve(Reply(usage={"prompt_tokens": 500, "total_tokens": 500})), sdk)
        client.embeddings.create(model="text-embedding-3-small", input=["one", "two"])
        call = sdk.call()
        assert call["gen_ai.operation.name"] == "embeddings"
        assert call["weir.cost.amount"] == pytest.approx(500 * 0.02 / 1e6)

    @pytest.mark.parametrize("tier", ["default", "flex"])
    def test_responses_are_priced_by_their_tier(self, serve: Serve, sdk: Sdk, tier: str) -> None:
        usage = {
            "input_tokens": 1000,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": 1000,
            "output_tokens_details": {"reasoning_tokens": 800},
            "total_tokens": 2000,
        }
        client = the_openai(serve(Reply("Hi", usage=usage, tier=tier)), sdk)
        with client.responses.stream(model="gpt-5", input="hi") as stream:
            stream.until_done()
        share = {"default": 1, "flex": 0.5}[tier]
        assert sdk.call()["weir.cost.amount"] == pytest.approx(share * (1000 * 1.25 + 1000 * 10) / 1e6)

    def test_an_error_is_one_span_however_often_it_was_tried(self, serve: Serve, sdk: Sdk) -> None:
        provider = serve(*[Reply("overloaded", status=503, headers={"retry-after-ms": "1"})] * 2)
        with pytest.raises(openai.InternalServerError):
            the_openai(provider, sdk, max_retries=1).chat.completions.create(**ASK)
        assert len(provider.asked) == 2
        (span,) = sdk.calls
        assert span.status.status_code.name == "ERROR"
        assert (span.attributes or {})["error.type"] == "openai.InternalServerError"
        assert "weir.cost.amount" not in sdk.call()

    def test_a_retry_that_succeeds_costs_once(self, serve: Serve, sdk: Sdk) -> None:
        provider = serve(Reply(status=429, headers={"retry-after-ms": "1"}), Reply("Hi", usage=CHAT_USAGE))
        the_openai(provider, sdk).chat.completions.create(**ASK)
        assert len(provider.asked) == 2
        assert sdk.call()["weir.cost.amount"] == pytest.approx(CHAT_COST)

    def test_a_model_that_nobody_knows_is_marked(
        self, provider: ModelProvider, sdk: Sdk, caplog: pytest.LogCaptureFixture
    ) -> None:
        the_openai(provider, sdk).chat.completions.create(**{**ASK, "model": "gpt-of-ours"})
        call = sdk.call()
        assert call["weir.cost.unknown_model"] is True
        assert "weir.cost.amount" not in call
        assert call["weir.trace.cost.incomplete"] is True
        assert "WEIR-GENAI-002: openai, gpt-of-ours." in caplog.text
        assert sdk.metric("weir.genai.cost") == {}


RESPONSE_USAGE = {
    "input_tokens": 2000,
    "input_tokens_details": {"cached_tokens": 1000},
    "output_tokens": 500,
    "output_tokens_details": {"reasoning_tokens": 100},
    "total_tokens": 2500,
}


class Answer(pydantic.BaseModel):
    number: int


def _lines_of(client: openai.OpenAI) -> None:
    with client.chat.completions.with_streaming_response.create(**ASK) as response:
        list(response.iter_lines())


WAYS: dict[str, Callable[[openai.OpenAI], object]] = {
    "chat": lambda client: client.chat.completions.create(**ASK),
    "chat, parsed": lambda client: client.chat.completions.parse(**ASK, response_format=Answer),
    "chat, parsed, beta": lambda client: client.beta.chat.completions.parse(**ASK, response_format=Answer),
    "chat, raw": lambda client: client.chat.completions.with_raw_response.create(**ASK).parse(),
    "chat, raw by the client": lambda client: client.with_raw_response.chat.completions.create(**ASK).parse(),
    "chat, streaming response": _lines_of,
    "chat, raw stream": lambda client: list(client.chat.completions.with_raw_response.create(**ASK, **STREAM).parse()),
    "chat, copied client": lambda client: client.with_options(timeout=9).chat.completions.create(**ASK),
    "responses": lambda client: client.responses.create(model="gpt-4o-mini", input="hi"),
    "responses, parsed": lambda client: client.responses.parse(model="gpt-4o-mini", input="hi", text_format=Answer),
    "responses, stream": lambda client: list(client.responses.create(model="gpt-4o-mini", input="hi", stream=True)),
    "responses, raw": lambda client: client.responses.with_raw_response.create(model="gpt-4o-mini", input="hi").parse(),
}


class TestEveryWay:
    """By one client, by all, and by both, a call is one span with one cost."""

    @pytest.mark.parametrize("tracked", ["one client", "all", "all, then one", "one, then all"])
    @pytest.mark.parametrize("way", WAYS)
    def test_to_call_openai(self, serve: Serve, sdk: Sdk, way: str, tracked: str) -> None:
        usage = RESPONSE_USAGE if "responses" in way else CHAT_USAGE
        client = openai.OpenAI(base_url=serve(Reply('{"number": 42}', usage=usage)).openai_url, api_key="none")
        try:
            for what in tracked.split(", then "):
                if what == "all":
                    OpenAIInstrumentor().instrument(**sdk.providers)
                else:
                    otelweir.track_openai(client, **sdk.providers)
            WAYS[way](client)
        finally:
            if "all" in tracked:
                OpenAIInstrumentor().uninstrument()
        assert sdk.call()["weir.cost.amount"] == pytest.approx(CHAT_COST)
        assert sdk.metric("weir.genai.cost") == {("openai", "gpt-4o-mini", "chat"): pytest.approx(CHAT_COST)}

    def test_to_reach_azure(self, serve: Serve, sdk: Sdk) -> None:
        url = serve(Reply("Hi", usage=CHAT_USAGE, model="gpt-4o-mini-2024-07-18")).url
        client = openai.AzureOpenAI(azure_endpoint=url, api_key="none", api_version="2024-10-21")
        otelweir.track_openai(client, **sdk.providers).chat.completions.create(**{**ASK, "model": "our-deployment"})
        assert sdk.call()["weir.cost.amount"] == pytest.approx(CHAT_COST)

    @pytest.mark.parametrize("stream", [False, True])
    def test_to_call_it_in_a_function_that_is_tracked_as_a_model(
        self, serve: Serve, sdk: Sdk, monkeypatch: pytest.MonkeyPatch, stream: bool
    ) -> None:
        """The call's span is the model's; the function is a step, with its input and output."""
        monkeypatch.setattr(track_otel, "_tracer", sdk.tracer)
        client = the_openai(serve(Reply("Hi there", usage=CHAT_USAGE)), sdk)

        @otelweir.track(kind="llm")
        def answer(question: str) -> object:
            messages: Any = [{"role": "user", "content": question}]
            if not stream:
                return client.chat.completions.create(model="gpt-4o-mini", messages=messages).choices[0].message.content
            return client.chat.completions.create(model="gpt-4o-mini", messages=messages, **STREAM)

        said = answer("What is a weir?")
        if stream:
            list(said)  # type: ignore[call-overload]
        assert sdk.call()["weir.cost.amount"] == pytest.approx(CHAT_COST)
        (function,) = [span.attributes or {} for span in sdk.spans if span.name == "answer"]
        assert function["openinference.span.kind"] == "CHAIN"
        assert "What is a weir?" in str(function["input.value"])
        if not stream:
            assert "Hi there" in str(function["output.value"])
            assert function["weir.trace.cost.amount"] == pytest.approx(CHAT_COST)


class TestOneClient:
    def test_is_tracked_and_no_other(self, provider: ModelProvider, sdk: Sdk) -> None:
        client = the_openai(provider, sdk)
        openai.OpenAI(base_url=provider.openai_url, api_key="none").chat.completions.create(**ASK)
        assert sdk.spans == []
        assert otelweir.track_openai(client, **sdk.providers) is client
        client.chat.completions.create(**ASK)
        assert len(sdk.calls) == 1, "tracked twice, traced once"

    def test_is_tracked_with_its_copies_and_by_every_way_to_call_it(self, provider: ModelProvider, sdk: Sdk) -> None:
        client = the_openai(provider, sdk)
        client.with_options(timeout=9).chat.completions.create(**ASK)
        client.chat.completions.with_raw_response.create(**ASK).parse()
        with client.chat.completions.stream(**ASK) as stream:
            stream.until_done()
        assert len(sdk.calls) == 3

    def test_of_something_else_is_refused(self) -> None:
        with pytest.raises(TypeError, match="a client of openai is due, not str"):
            otelweir.track_openai("client")
        with pytest.raises(TypeError, match="a client of anthropic is due, not OpenAI"):
            otelweir.track_anthropic(openai.OpenAI(api_key="none"))


class TestAnthropic:
    def test_cached_tokens_are_part_of_the_input_and_have_their_price(self, serve: Serve, sdk: Sdk) -> None:
        the_anthropic(serve(Reply("Hello.", usage=CLAUDE_USAGE)), sdk).messages.create(**ASK_CLAUDE)
        call = sdk.call()
        assert call["gen_ai.usage.input_tokens"] == 7000
        assert call["gen_ai.usage.cache_read.input_tokens"] == 4000
        assert call["gen_ai.usage.cache_write.input_tokens"] == call["gen_ai.usage.cache_creation.input_tokens"] == 2000
        assert call["weir.cost.amount"] == pytest.approx(CLAUDE_COST)

    def test_an_hour_of_cache_costs_more(self, serve: Serve, sdk: Sdk) -> None:
        """How long, only the client's own span tells."""
        an_hour = {**CLAUDE_USAGE, "cache_creation": {"ephemeral_1h_input_tokens": 2000}}
        the_anthropic(serve(Reply("Hello.", usage=an_hour)), sdk).messages.create(**ASK_CLAUDE)
        assert sdk.call()["weir.cost.amount"] == pytest.approx(CLAUDE_COST + 2000 * (2 - 1.25) / 1e6)

    def test_of_its_own_span_and_ours_one_is_the_models(self, serve: Serve, sdk: Sdk) -> None:
        the_anthropic(serve(Reply("Hello.", usage=CLAUDE_USAGE)), sdk).messages.create(**ASK_CLAUDE)
        transport, call = sdk.spans
        assert transport.name == "anthropic.messages.create"
        assert not any(name.startswith("gen_ai.") for name in transport.attributes or {})
        assert (transport.attributes or {})["http.response.status_code"] == 200
        assert (call.attributes or {})["weir.trace.llm.calls"] == 1

    @pytest.mark.parametrize("way", ["stream", "create"])
    def test_a_stream_that_is_left_costs_at_least_what_was_told(self, serve: Serve, sdk: Sdk, way: str) -> None:
        client = the_anthropic(serve(Reply("one two three", usage=CLAUDE_USAGE)), sdk)
        if way == "stream":
            with client.messages.stream(**ASK_CLAUDE) as left:
                next(iter(left.text_stream))
        else:
            stream = client.messages.create(**ASK_CLAUDE, stream=True)
            next(iter(stream))
            stream.close()
        call = sdk.call()
        assert call["weir.cost.incomplete"] is True
        assert 0 < call["weir.cost.amount"] < CLAUDE_COST

    def test_its_own_span_alone_is_a_call(self, serve: Serve, sdk: Sdk) -> None:
        provider = serve(Reply("Hello.", usage=CLAUDE_USAGE))
        options: Any = {"tracer_provider": sdk.providers["tracer_provider"]}
        anthropic.Anthropic(base_url=provider.url, api_key="none", open_telemetry=options).messages.create(**ASK_CLAUDE)
        assert sdk.call()["weir.cost.amount"] == pytest.approx(CLAUDE_COST)

    def test_streams_have_their_cost(self, serve: Serve, sdk: Sdk, content: None) -> None:
        reply = Reply("Let me see.", tools=(ToolCall("weather", {"city": "Oslo"}),), usage=CLAUDE_USAGE)
        with the_anthropic(serve(reply), sdk).messages.stream(**ASK_CLAUDE) as stream:
            stream.until_done()
        call = sdk.call()
        assert call["weir.cost.amount"] == pytest.approx(CLAUDE_COST)
        assert call["gen_ai.response.time_to_first_chunk"] > 0
        (message,) = json.loads(call["gen_ai.output.messages"])
        assert [part["type"] for part in message["parts"]] == ["text", "tool_call"]

    async def test_async_streams_do(self, serve: Serve, sdk: Sdk) -> None:
        provider = serve(Reply("Hello.", usage=CLAUDE_USAGE))
        client = otelweir.track_anthropic(
            anthropic.AsyncAnthropic(base_url=provider.url, api_key="none"), **sdk.providers
        )
        async for _ in await client.messages.create(**ASK_CLAUDE, stream=True):
            pass
        assert sdk.call()["weir.cost.amount"] == pytest.approx(CLAUDE_COST)
