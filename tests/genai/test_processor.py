"""What our processor does with spans, whoever made them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from opentelemetry._logs import LogRecord
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, TraceFlags, set_span_in_context

from otelweir.pipeline.capture.genai.otel import GenAILogProcessor, GenAISpanProcessor
from otelweir.pipeline.capture.genai.settings import GenAISettings

if TYPE_CHECKING:
    from tests.genai.conftest import Sdk

MakeSdk = Callable[..., "Sdk"]

CALL: dict[str, Any] = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.model": "gpt-4o-mini",
    "gen_ai.usage.input_tokens": 1_000_000,
    "gen_ai.usage.output_tokens": 100_000,
}
COST = 0.15 + 0.06


def call(sdk: Sdk, **more: Any) -> None:
    with sdk.tracer.start_as_current_span("chat", kind=SpanKind.CLIENT, attributes={**CALL, **more}):
        pass


def attributes(sdk: Sdk, name: str) -> dict[str, Any]:
    (span,) = [span for span in sdk.spans if span.name == name]
    return dict(span.attributes or {})


class TestTheLocalRoot:
    def test_carries_the_sum_over_its_trace(self, sdk: Sdk) -> None:
        with sdk.tracer.start_as_current_span("request"), sdk.tracer.start_as_current_span("agent"):
            call(sdk)
            call(sdk, **{"gen_ai.request.model": "ours"})
            call(sdk)
        root = attributes(sdk, "request")
        assert root["weir.trace.cost.amount"] == pytest.approx(2 * COST)
        assert root["weir.trace.cost.currency"] == "USD"
        assert root["weir.trace.llm.calls"] == 3
        assert root["weir.trace.usage.input_tokens"] == 3_000_000
        assert root["weir.trace.usage.output_tokens"] == 300_000
        assert root["weir.trace.cost.incomplete"] is True
        assert attributes(sdk, "agent") == {}

    def test_below_a_remote_parent_is_one_too(self, sdk: Sdk) -> None:
        remote = NonRecordingSpan(SpanContext(7, 8, is_remote=True, trace_flags=TraceFlags(1)))
        with sdk.tracer.start_as_current_span("request", context=set_span_in_context(remote)):
            call(sdk)
        assert attributes(sdk, "request")["weir.trace.cost.amount"] == pytest.approx(COST)

    def test_without_calls_is_the_span_that_it_was(self) -> None:
        seen: list[ReadableSpan] = []

        class Keep(SpanProcessor):
            def on_end(self, span: ReadableSpan) -> None:
                seen.append(span)

        tracers = TracerProvider(shutdown_on_exit=False)
        tracers.add_span_processor(GenAISpanProcessor(Keep(), GenAISettings()))
        with tracers.get_tracer("t").start_as_current_span("work", attributes={"a": 1}):
            pass
        assert dict(seen[0].attributes or {}) == {"a": 1}


class TestOneCall:
    def test_that_two_instrumentations_tell_of_is_counted_once(self, sdk: Sdk) -> None:
        """A framework's span around a client's: the client's is counted, as it ends first."""
        with sdk.tracer.start_as_current_span("framework", attributes=CALL):
            call(sdk)
        assert sdk.metric("weir.genai.cost") == {("openai", "gpt-4o-mini", "chat"): pytest.approx(COST)}
        outer = attributes(sdk, "framework")
        assert outer["weir.trace.llm.calls"] == 1
        assert "weir.cost.amount" not in outer

    def test_that_two_spans_beside_each_other_tell_of_is_counted_once(self, sdk: Sdk) -> None:
        outer = sdk.tracer.start_span("outer", kind=SpanKind.CLIENT, attributes={**CALL, "gen_ai.response.id": "r"})
        call(sdk, **{"gen_ai.response.id": "r"})
        outer.end()
        assert sdk.metric("weir.genai.cost") == {("openai", "gpt-4o-mini", "chat"): pytest.approx(COST)}
        assert len(sdk.calls) == 1

    def test_of_a_framework_is_one_model_s_span_and_steps_around_it(self, sdk: Sdk) -> None:
        messages = json.dumps([{"role": "user", "parts": [{"type": "text", "content": "hi"}]}])
        around: dict[str, Any] = {"gen_ai.operation.name": "chat", "gen_ai.input.messages": messages, "mine": 1}
        with sdk.tracer.start_as_current_span("function", attributes=around):
            call(sdk)
            call(sdk)
        assert len(sdk.calls) == 2
        assert attributes(sdk, "function") == {
            "mine": 1,
            "openinference.span.kind": "CHAIN",
            "input.value": messages,
            "input.mime_type": "application/json",
            "weir.trace.cost.amount": pytest.approx(2 * COST),
            "weir.trace.cost.currency": "USD",
            "weir.trace.llm.calls": 2,
            "weir.trace.usage.input_tokens": 2_000_000,
            "weir.trace.usage.output_tokens": 200_000,
        }

    def test_that_failed_or_goes_on_as_a_stream_is_one_too(self, sdk: Sdk) -> None:
        """The stream's span ends after that of the function that gave it away."""
        asked = {name: value for name, value in CALL.items() if "usage" not in name}
        with sdk.tracer.start_as_current_span("failed", attributes={"gen_ai.operation.name": "chat"}):
            sdk.tracer.start_span("chat m", kind=SpanKind.CLIENT, attributes={**asked, "error.type": "Boom"}).end()
        with sdk.tracer.start_as_current_span("stream", attributes={"gen_ai.operation.name": "chat"}):
            stream = sdk.tracer.start_span("chat m", kind=SpanKind.CLIENT, attributes=asked)
        stream.set_attributes(CALL)
        stream.end()
        assert [span.name for span in sdk.calls] == ["chat m", "chat m"]
        assert {attributes(sdk, name)["openinference.span.kind"] for name in ("failed", "stream")} == {"CHAIN"}

    def test_of_another_sort_below_it_leaves_a_call_what_it_is(self, sdk: Sdk) -> None:
        """A client with a semantic cache asks for a vector first."""
        vector = {"gen_ai.operation.name": "embeddings", "gen_ai.request.model": "text-embedding-3-small"}
        with sdk.tracer.start_as_current_span("chat", kind=SpanKind.CLIENT, attributes=CALL):
            with sdk.tracer.start_as_current_span(
                "embeddings", kind=SpanKind.CLIENT, attributes={**CALL, **vector, "gen_ai.usage.output_tokens": 0}
            ):
                pass
        assert len(sdk.calls) == 2
        assert attributes(sdk, "chat")["weir.cost.amount"] == pytest.approx(COST)
        assert attributes(sdk, "chat")["weir.trace.llm.calls"] == 2

    def test_that_openinference_tells_of_is_priced_and_one(self, sdk: Sdk) -> None:
        """Its framework's span is not around the client's, and none of them has the provider's id."""
        told: dict[str, Any] = {
            "openinference.span.kind": "LLM",
            "llm.model_name": "gpt-4o-mini",
            "llm.provider": "openai",
            "llm.token_count.prompt": 1_000_000,
            "llm.token_count.completion": 100_000,
            "llm.token_count.prompt_details.cache_read": 0,
        }
        client, framework = (
            sdk.providers["tracer_provider"].get_tracer(f"openinference.{name}") for name in ("c", "f")
        )
        around = framework.start_span("ChatOpenAI", attributes=told)
        client.start_span("ChatCompletion", attributes=told).end()
        around.end()
        client.start_span("ChatCompletion", attributes=told).end()
        assert sdk.metric("weir.genai.cost") == {("openai", "gpt-4o-mini", "chat"): pytest.approx(2 * COST)}
        first, step, second = (dict[str, Any](span.attributes or {}) for span in sdk.spans)
        assert first["weir.cost.amount"] == second["weir.cost.amount"] == pytest.approx(COST)
        assert "openinference.span.kind" not in step
        assert "weir.cost.amount" not in step

    def test_is_the_outer_spans_where_that_says_late_what_it_is(self, sdk: Sdk) -> None:
        """As OpenLLMetry's do."""
        with sdk.tracer.start_as_current_span("openai.chat", kind=SpanKind.CLIENT) as outer:
            outer.set_attributes({"gen_ai.operation.name": "chat", "gen_ai.request.model": "gpt-4o-mini"})
            call(sdk)
        (sent,) = sdk.calls
        assert sent.name == "openai.chat"
        assert (sent.attributes or {})["weir.cost.amount"] == pytest.approx(COST)

    def test_agents_repeat_what_their_calls_used(self, sdk: Sdk) -> None:
        with sdk.tracer.start_as_current_span("agent", attributes={**CALL, "gen_ai.operation.name": "invoke_agent"}):
            call(sdk)
        assert "weir.cost.amount" not in attributes(sdk, "agent")
        assert attributes(sdk, "agent")["weir.trace.cost.amount"] == pytest.approx(COST)


class TestWhatIsSent:
    def test_has_every_name_that_backends_read(self, sdk: Sdk) -> None:
        call(sdk, **{"gen_ai.conversation.id": "c1", "gen_ai.usage.cache_write.input_tokens": 5})
        sent = sdk.call()
        assert sent["session.id"] == "c1"
        assert sent["gen_ai.usage.cache_creation.input_tokens"] == 5

    def test_belongs_to_the_session_that_the_application_names(self, sdk: Sdk) -> None:
        call(sdk, **{"gen_ai.conversation.id": "thread", "session.id": "mine"})
        sent = sdk.call()
        assert (sent["session.id"], sent["gen_ai.conversation.id"]) == ("mine", "mine")
        assert sent["weir.genai.conversation.id"] == "thread"

    def test_has_messages_in_form_and_within_the_limit(self, make_sdk: MakeSdk) -> None:
        sdk = make_sdk(genai_content_max_bytes=1000)
        said = json.dumps([{"role": "assistant", "content": "x" * 5000}])
        call(sdk, **{"gen_ai.output.messages": said, "gen_ai.response.finish_reasons": ["length"]})
        sent = sdk.call()["gen_ai.output.messages"]
        assert len(sent) <= 1000
        (message,) = json.loads(sent)
        assert (message["finish_reason"], message["parts"][0]["type"]) == ("length", "text")

    def test_has_mlflows_cost_where_it_is_wanted(self, make_sdk: MakeSdk) -> None:
        sdk = make_sdk(genai_mlflow_cost=True)
        call(sdk)
        assert json.loads(sdk.call()["mlflow.llm.cost"]) == {
            "input_cost": 0.15,
            "output_cost": 0.06,
            "total_cost": 0.21,
        }

    def test_says_what_had_to_be_dropped(self, sdk: Sdk) -> None:
        seen: list[ReadableSpan] = []

        class Keep(SpanProcessor):
            def on_end(self, span: ReadableSpan) -> None:
                seen.append(span)

        tracers = TracerProvider(shutdown_on_exit=False, span_limits=SpanLimits(max_events=1, max_attributes=6))
        tracers.add_span_processor(GenAISpanProcessor(Keep(), GenAISettings()))
        span = tracers.get_tracer("t").start_span("chat", attributes={"dropped": 1, "too": 2, **CALL})
        span.add_event("one")
        span.add_event("two")
        span.end()
        (sent,) = seen
        assert (sent.dropped_attributes, sent.dropped_events, len(sent.events)) == (1, 1, 1)
        assert (sent.attributes or {})["weir.cost.amount"] == pytest.approx(COST)


class TestOwnPrices:
    def test_win(self, make_sdk: MakeSdk, tmp_path: Path) -> None:
        file = tmp_path / "prices.json"
        file.write_text(json.dumps({"date": "2026-11-01", "models": [{"model": "gpt-4o*", "input": 1}]}))
        sdk = make_sdk(prices_file=str(file))
        call(sdk)
        call(sdk, **{"gen_ai.request.model": "text-embedding-3-small"})
        own, listed = (dict[str, Any](span.attributes or {}) for span in sdk.calls)
        assert (own["weir.cost.amount"], own["weir.cost.source"], own["weir.cost.source_date"]) == (
            1.0,
            "prices.json",
            "2026-11-01",
        )
        assert listed["weir.cost.source"].startswith("genai-prices")

    def test_in_another_currency_are_not_mixed_with_the_list(self, make_sdk: MakeSdk, tmp_path: Path) -> None:
        file = tmp_path / "prices.json"
        file.write_text(json.dumps({"currency": "EUR", "models": [{"model": "gpt-4o*", "input": 1}]}))
        sdk = make_sdk(prices_file=str(file))
        with sdk.tracer.start_as_current_span("request"):
            call(sdk)
            call(sdk, **{"gen_ai.request.model": "text-embedding-3-small"})
        assert attributes(sdk, "request")["weir.trace.cost.currency"] == "EUR"
        assert [(span.attributes or {}).get("weir.cost.unknown_model") for span in sdk.calls] == [None, True]

    def test_in_another_currency_convert_the_list_at_their_rate(self, make_sdk: MakeSdk, tmp_path: Path) -> None:
        file = tmp_path / "prices.json"
        file.write_text(json.dumps({"currency": "EUR", "usd_rate": 0.9, "models": [{"model": "ours", "input": 1}]}))
        sdk = make_sdk(prices_file=str(file), cost_budget=100)
        with sdk.tracer.start_as_current_span("request"):
            call(sdk)
            call(sdk, **{"gen_ai.request.model": "ours"})
        listed, own = (dict[str, Any](span.attributes or {}) for span in sdk.calls)
        assert (listed["weir.cost.amount"], listed["weir.cost.currency"]) == (pytest.approx(0.9 * COST), "EUR")
        assert listed["weir.cost.source"].startswith("genai-prices ")
        assert listed["weir.cost.source"].endswith(" at 0.9 EUR/USD")
        assert own["weir.cost.amount"] == 1.0
        root = attributes(sdk, "request")
        assert (root["weir.trace.cost.amount"], root["weir.trace.cost.currency"]) == (
            pytest.approx(1 + 0.9 * COST),
            "EUR",
        )

    def test_may_be_those_of_a_tier(self, make_sdk: MakeSdk, tmp_path: Path) -> None:
        file = tmp_path / "prices.json"
        file.write_text(
            json.dumps({"models": [{"model": "m", "tier": "batch", "input": 1}, {"model": "m", "input": 2}]})
        )
        sdk = make_sdk(prices_file=str(file))
        call(sdk, **{"gen_ai.request.model": "m", "openai.response.service_tier": "batch"})
        call(sdk, **{"gen_ai.request.model": "m"})
        assert [(span.attributes or {})["weir.cost.amount"] for span in sdk.calls] == [1.0, 2.0]

    def test_that_are_not_valid_are_reported_and_left_out(
        self, make_sdk: MakeSdk, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        file = tmp_path / "prices.json"
        file.write_text("{}")
        sdk = make_sdk(prices_file=str(file))
        call(sdk)
        assert "WEIR-GENAI-001" in caplog.text
        assert sdk.call()["weir.cost.source"].startswith("genai-prices")


class TestTokensThatNobodyTold:
    ASKED: ClassVar = {name: value for name, value in CALL.items() if "usage" not in name}

    def test_are_marked_on_the_call_and_on_the_root(self, sdk: Sdk, caplog: pytest.LogCaptureFixture) -> None:
        told: dict[str, Any] = {
            "gen_ai.request.stream": True,
            "gen_ai.response.finish_reasons": ["stop"],
            "gen_ai.response.id": "r",
        }
        with sdk.tracer.start_as_current_span("request"):
            sdk.tracer.start_span("chat", kind=SpanKind.CLIENT, attributes={**self.ASKED, **told}).end()
            call(sdk)
        silent = sdk.calls[0].attributes or {}
        assert silent["weir.cost.incomplete"] is True
        assert "weir.cost.amount" not in silent
        assert "weir.cost.unknown_model" not in silent
        root = attributes(sdk, "request")
        assert (root["weir.trace.cost.incomplete"], root["weir.trace.llm.calls"]) == (True, 2)
        assert root["weir.trace.cost.amount"] == pytest.approx(COST)
        assert "WEIR-GENAI-006: openai, gpt-4o-mini." in caplog.text

    def test_of_a_stream_that_was_left_cost_at_least_what_was_told(self, sdk: Sdk) -> None:
        """Anthropic tells the input at the beginning, and the output at the end."""
        call(sdk, **{"gen_ai.request.stream": True})
        assert sdk.call()["weir.cost.incomplete"] is True
        assert sdk.call()["weir.cost.amount"] == pytest.approx(COST)

    def test_are_none_where_the_call_failed(self, sdk: Sdk) -> None:
        failed = {**self.ASKED, "error.type": "openai.InternalServerError"}
        sdk.tracer.start_span("chat", kind=SpanKind.CLIENT, attributes=failed).end()
        assert "weir.cost.incomplete" not in sdk.call()

    def test_are_not_expected_of_a_function(self, sdk: Sdk) -> None:
        said: dict[str, Any] = {"gen_ai.operation.name": "chat", "gen_ai.response.time_to_first_chunk": 0.1}
        sdk.tracer.start_span("mine", attributes=said).end()
        assert sdk.call() == said


class TestEvents:
    def test_have_messages_within_the_limit(self) -> None:
        exporter = InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]
        provider = LoggerProvider(shutdown_on_exit=False)
        provider.add_log_record_processor(GenAILogProcessor(GenAISettings(genai_content_max_bytes=1000)))
        provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
        message = {"role": "user", "parts": [{"type": "text", "content": "x" * 5000}]}
        for name in ("gen_ai.client.inference.operation.details", "mine"):
            few: dict[str, Any] = {
                "gen_ai.input.messages": [{"role": "user", "parts": []}],
                "gen_ai.output.messages": [message],
            }
            provider.get_logger("t").emit(LogRecord(event_name=name, attributes=few))
        event, mine = (record.log_record.attributes or {} for record in exporter.get_finished_logs())
        (sent,) = cast("list[Any]", event["gen_ai.output.messages"])
        assert len(json.dumps(sent)) < 1000
        assert sent["parts"][0]["content"].endswith("more characters)")
        assert event["gen_ai.input.messages"] == mine["gen_ai.input.messages"]
        assert len(json.dumps(mine["gen_ai.output.messages"])) > 5000


class TestTheBudget:
    def test_warns_once(self, make_sdk: MakeSdk, caplog: pytest.LogCaptureFixture) -> None:
        sdk = make_sdk(cost_budget=0.5)
        for _ in range(5):
            call(sdk)
        assert caplog.text.count("WEIR-GENAI-003") == 1
        assert "calls to models cost 0.63 USD by " in caplog.text


ODD = st.sampled_from(
    [
        "chat",
        "LLM",
        "openai",
        "gpt-4o-mini",
        -1,
        0,
        10**18,
        3.5,
        True,
        ["a"],
        [1],
        "[]",
        "[{}]",
        '[{"role":1}]',
        "\ud800",
    ]
)
NAMES = st.sampled_from(
    [
        *CALL,
        "openinference.span.kind",
        "llm.model_name",
        "gen_ai.input.messages",
        "gen_ai.output.messages",
        "gen_ai.response.finish_reasons",
        "gen_ai.response.id",
        "gen_ai.response.model",
        "gen_ai.request.stream",
        "openai.response.service_tier",
        "session.id",
        "gen_ai.conversation.id",
    ]
)


class TestTrouble:
    @given(st.dictionaries(NAMES, ODD), st.dictionaries(NAMES, ODD), st.sampled_from(SpanKind))
    @example(
        {**CALL, "gen_ai.output.messages": '[{"role":1}]', "gen_ai.response.finish_reasons": 7}, {}, SpanKind.CLIENT
    )
    def test_is_none_whatever_spans_say(self, outer: dict[str, Any], inner: dict[str, Any], kind: SpanKind) -> None:
        ended: list[ReadableSpan] = []

        class Strict(GenAISpanProcessor):
            """Raises what it would report."""

            def on_end(self, span: ReadableSpan) -> None:
                ended.append(self._ended(span))

        tracers = TracerProvider(shutdown_on_exit=False)
        tracers.add_span_processor(Strict(SpanProcessor(), GenAISettings()))
        tracer = tracers.get_tracer("t")
        with tracer.start_as_current_span("chat x", kind=kind, attributes=outer):
            tracer.start_span("chat y", kind=SpanKind.CLIENT, attributes=inner).end()
        assert len(ended) == 2

    def test_lets_the_span_pass(self, sdk: Sdk, caplog: pytest.LogCaptureFixture) -> None:
        call(sdk, **{"gen_ai.usage.input_tokens": 10**30, "gen_ai.request.model": ["a", "list"]})
        assert len(sdk.spans) == 1
