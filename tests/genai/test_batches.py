"""Results of batch interfaces, read with the real clients: each is a call, at the batch's price."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.genai.conftest import Sdk

import otelweir
from otelweir.demo.provider import ModelProvider
from otelweir.pipeline.capture.genai import otel
from otelweir.pipeline.capture.genai.batch import answer_of

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
# The names that are looked for, with anything below them.
RESULT = st.recursive(
    JSON,
    lambda inner: st.dictionaries(
        st.sampled_from(
            ["custom_id", "result", "type", "message", "usage", "response", "body", "error", "status_code", "choices"]
        ),
        inner,
        max_size=4,
    ),
    max_leaves=12,
)


def lines(*entries: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(entry).encode() + b"\n" for entry in entries)


def of_openai(name: str, **body: Any) -> dict[str, Any]:
    response = {
        "status_code": 200,
        "request_id": "r",
        "body": {"id": f"chatcmpl-{name}", "model": "gpt-4o-mini", **body},
    }
    return {"id": f"batch_req_{name}", "custom_id": name, "response": response, "error": None}


def of_anthropic(name: str, result: dict[str, Any]) -> dict[str, Any]:
    return {"custom_id": name, "result": result}


CHAT = of_openai(
    "one",
    object="chat.completion",
    choices=[{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}],
    usage={
        "prompt_tokens": 2000,
        "completion_tokens": 500,
        "total_tokens": 2500,
        "prompt_tokens_details": {"cached_tokens": 0},
    },
)
VECTORS = of_openai("two", object="list", usage={"prompt_tokens": 500, "total_tokens": 500})
VECTORS["response"]["body"]["model"] = "text-embedding-3-small"
REFUSED = {"custom_id": "three", "response": None, "error": {"code": "batch_expired", "message": "too late"}}
CHAT_COST = (2000 * 0.15 + 500 * 0.60) / 2 / 1e6

MESSAGE = {
    "id": "msg_one",
    "type": "message",
    "role": "assistant",
    "model": "claude-haiku-4-5",
    "content": [{"type": "text", "text": "Hi"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {
        "input_tokens": 1000,
        "output_tokens": 500,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 4000,
        "service_tier": "batch",
    },
}
CLAUDE = lines(
    of_anthropic("one", {"type": "succeeded", "message": MESSAGE}),
    of_anthropic(
        "two", {"type": "errored", "error": {"type": "error", "error": {"type": "overloaded_error", "message": "x"}}}
    ),
    of_anthropic("three", {"type": "expired"}),
)
CLAUDE_COST = (1000 * 1 + 4000 * 0.1 + 500 * 5) / 2 / 1e6


@pytest.fixture(autouse=True)
def _nothing_read_before() -> None:
    otel._counted.clear()


@pytest.fixture
def provider() -> Iterator[ModelProvider]:
    with ModelProvider() as provider:
        provider.files = {
            "/v1/files/file-1/content": lines(CHAT, VECTORS, REFUSED),
            "/v1/messages/batches/b1": json.dumps(
                {
                    "id": "b1",
                    "type": "message_batch",
                    "processing_status": "ended",
                    "request_counts": {"canceled": 0, "errored": 1, "expired": 1, "processing": 0, "succeeded": 1},
                    "created_at": "2026-11-01T00:00:00Z",
                    "expires_at": "2026-11-02T00:00:00Z",
                    "results_url": f"{provider.url}/v1/messages/batches/b1/results",
                }
            ).encode(),
            "/v1/messages/batches/b1/results": CLAUDE,
        }
        yield provider


def told(sdk: Sdk) -> list[tuple[str, object, object]]:
    """By span: its name, what it cost, and why it failed."""
    spans = [(span.name, span.attributes or {}) for span in sdk.spans]
    return [(name, found.get("weir.cost.amount"), found.get("error.type")) for name, found in spans]


class TestOpenAI:
    def test_each_line_is_a_call_at_half_the_price(self, provider: ModelProvider, sdk: Sdk) -> None:
        file = openai.OpenAI(base_url=provider.openai_url, api_key="none").files.content("file-1")
        entries = list(otelweir.batch_results(file, tracer_provider=sdk.providers["tracer_provider"]))
        assert [entry["custom_id"] for entry in entries] == ["one", "two", "three"]
        assert told(sdk) == [
            ("chat gpt-4o-mini", pytest.approx(CHAT_COST), None),
            ("embeddings text-embedding-3-small", None, None),
            ("chat", None, "batch_expired"),
            ("batch results", None, None),
        ]
        *calls, around = sdk.spans
        assert [(span.attributes or {})["weir.genai.batch.custom_id"] for span in calls] == ["one", "two", "three"]
        assert (calls[0].attributes or {})["gen_ai.response.finish_reasons"] == ("stop",)
        assert (calls[1].attributes or {})["weir.cost.unknown_model"] is True, "the list has no batch price for it"
        assert calls[2].status.status_code.name == "ERROR"
        root = around.attributes or {}
        assert root["weir.trace.cost.amount"] == pytest.approx(CHAT_COST)
        assert root["weir.trace.cost.incomplete"] is True
        assert (root["weir.trace.llm.calls"], root["weir.trace.usage.input_tokens"]) == (2, 2500)

    def test_a_result_that_is_read_again_is_not_counted_again(self, sdk: Sdk) -> None:
        for read in (lines(CHAT), lines(CHAT).decode(), lines(CHAT).splitlines(), [CHAT]):
            (entry,) = otelweir.batch_results(read, tracer_provider=sdk.providers["tracer_provider"])
            assert isinstance(entry, (dict, bytes))
        assert len(sdk.calls) == 1
        assert sum(sdk.metric("weir.genai.cost").values()) == pytest.approx(CHAT_COST)

    def test_what_is_remembered_is_bounded(self, sdk: Sdk, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(otel, "_MAX_COUNTED", 10)
        many = [of_openai(str(at), usage={"prompt_tokens": 1, "completion_tokens": 1}) for at in range(50)]
        list(otelweir.batch_results(many, tracer_provider=sdk.providers["tracer_provider"]))
        assert (len(otel._counted), len(sdk.calls)) == (10, 50)


class TestAnthropic:
    def test_each_result_is_a_call_at_half_the_price(self, provider: ModelProvider, sdk: Sdk) -> None:
        client = anthropic.Anthropic(base_url=provider.url, api_key="none")
        results = client.messages.batches.results("b1")
        entries = list(otelweir.batch_results(results, tracer_provider=sdk.providers["tracer_provider"]))
        assert [entry.result.type for entry in entries] == ["succeeded", "errored", "expired"]
        assert told(sdk) == [
            ("chat claude-haiku-4-5", pytest.approx(CLAUDE_COST), None),
            ("chat", None, "overloaded_error"),
            ("chat", None, "expired"),
            ("batch results", None, None),
        ]
        call = sdk.calls[0].attributes or {}
        assert (call["gen_ai.usage.input_tokens"], call["gen_ai.usage.cache_read.input_tokens"]) == (5000, 4000)

    async def test_an_async_client_has_them_too(self, provider: ModelProvider, sdk: Sdk) -> None:
        client = anthropic.AsyncAnthropic(base_url=provider.url, api_key="none")
        results = await client.messages.batches.results("b1")
        seen = [
            entry async for entry in otelweir.batch_results(results, tracer_provider=sdk.providers["tracer_provider"])
        ]
        assert (len(seen), told(sdk)[0][1]) == (3, pytest.approx(CLAUDE_COST))


class TestTrouble:
    def test_a_reader_who_stops_leaves_no_span_open(self, sdk: Sdk) -> None:
        reading = otelweir.batch_results([CHAT, VECTORS], tracer_provider=sdk.providers["tracer_provider"])
        next(reading)
        reading.close()  # type: ignore[attr-defined]
        assert [name for name, *_ in told(sdk)] == ["chat gpt-4o-mini", "batch results"]

    def test_what_is_no_result_goes_through(self, sdk: Sdk) -> None:
        odd: list[Any] = [None, 7, "no json", {}, {"result": 1}, {"response": {"body": [1]}}]
        assert list(otelweir.batch_results(odd, tracer_provider=sdk.providers["tracer_provider"])) == odd

    def test_an_error_on_the_way_is_the_readers(self, sdk: Sdk) -> None:
        def broken() -> Iterator[dict[str, Any]]:
            yield CHAT
            raise ConnectionError

        with pytest.raises(ConnectionError):
            list(otelweir.batch_results(broken(), tracer_provider=sdk.providers["tracer_provider"]))
        assert sdk.spans[-1].status.status_code.name == "ERROR"

    @given(RESULT)
    def test_no_entry_raises(self, entry: object) -> None:
        answer = answer_of(entry)
        assert answer is None or answer.name
