"""The examples, as their docstrings say: offline, with the real clients; their traces arrive complete."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from otelweir.testing import Backend, ReceivedSpan

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
LAUNCHER = str(Path(sys.executable).with_name("opentelemetry-instrument"))


def run(example: str, *launcher: str) -> tuple[str, list[ReceivedSpan], Backend]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("OTEL_", "WEIR_", "OPENAI_", "ANTHROPIC_"))}
    with Backend() as backend:
        done = subprocess.run(
            [*launcher, sys.executable, str(EXAMPLES / f"{example}.py")],
            env=clean
            | {
                "OTEL_EXPORTER_OTLP_ENDPOINT": backend.endpoint,
                "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "span_only",
            },
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout, sorted(backend.spans, key=lambda span: span.start_time_unix_nano), backend


def test_a_streamed_chat_with_openai() -> None:
    said, (question, call), backend = run("openai_chat", LAUNCHER)
    assert said == "A weir holds back the flood and lets the stream through.\n"
    assert call.parent_span_id == question.span_id
    assert call.attributes["gen_ai.response.time_to_first_chunk"] > 0
    assert question.attributes["weir.trace.cost.amount"] == call.attributes["weir.cost.amount"] > 0
    assert {"weir.genai.cost", "gen_ai.client.token.usage"} <= {metric.name for metric in backend.metrics}


def test_a_chat_with_anthropic_that_calls_a_tool() -> None:
    said, spans, _ = run("anthropic_chat")
    calls = [span for span in spans if span.name == "chat claude-haiku-4-5"]
    assert said.startswith("The Isar stands at")
    assert len(calls) == 2
    assert spans[0].attributes["weir.trace.cost.amount"] == pytest.approx(
        sum(call.attributes["weir.cost.amount"] for call in calls)
    )


def test_a_langchain_agent_with_a_tool() -> None:
    said, (agent, first, tool, second), _ = run("langchain_agent", LAUNCHER)
    assert said.startswith("The Isar stands at")
    assert [span.name for span in (agent, first, tool, second)] == [
        "invoke_agent lock-keeper",
        "chat gpt-4o-mini",
        "execute_tool water_level",
        "chat gpt-4o-mini",
    ]
    assert {span.parent_span_id for span in (first, tool, second)} == {agent.span_id}
    assert agent.attributes["weir.trace.llm.calls"] == 2
    assert agent.attributes["weir.trace.cost.amount"] == pytest.approx(
        first.attributes["weir.cost.amount"] + second.attributes["weir.cost.amount"]
    )


def test_answering_from_documents() -> None:
    said, (chain, retriever, embedding, call), _ = run("rag", LAUNCHER)
    assert said == "It holds back the flood.\n"
    assert [span.parent_span_id for span in (retriever, embedding, call)] == [
        chain.span_id,
        retriever.span_id,
        chain.span_id,
    ]
    assert "A weir is a low barrier" in call.attributes["gen_ai.input.messages"]
    assert chain.attributes["weir.trace.cost.amount"] == pytest.approx(
        embedding.attributes["weir.cost.amount"] + call.attributes["weir.cost.amount"]
    )
    for span in (chain, retriever, embedding, call):
        assert (span.attributes["session.id"], span.attributes["user.id"]) == ("visit-1", "ada")
    assert call.attributes["gen_ai.conversation.id"] == "visit-1"
