"""What Phoenix shows of the examples."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.backends.conftest import Backend

ALL = 15


@pytest.fixture(scope="module")
def spans(phoenix: Backend) -> list[dict[str, Any]]:
    """All spans, in the order in which they began."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        found = phoenix.get("/v1/projects/default/spans?limit=100")["data"]
        if len(found) >= ALL:
            break
        time.sleep(0.5)
    return sorted(found, key=lambda span: str(span["start_time"]))


def tree(spans: list[dict[str, Any]], root: str) -> list[tuple[str, str]]:
    """Names and kinds of the spans of the first trace whose root has a name."""
    (first, *_) = (span for span in spans if span["name"] == root and not span.get("parent_id"))
    trace = first["context"]["trace_id"]
    return [(span["name"], span["span_kind"]) for span in spans if span["context"]["trace_id"] == trace]


def one(spans: list[dict[str, Any]], **wanted: str) -> dict[str, Any]:
    """The attributes of the first span that has some."""
    for span in spans:
        if all(str(span["attributes"].get(name.replace("__", "."))) == value for name, value in wanted.items()):
            return dict(span["attributes"])
    raise AssertionError(wanted)


def test_the_tree_of_an_agent(spans: list[dict[str, Any]]) -> None:
    assert tree(spans, "invoke_agent lock-keeper") == [
        ("invoke_agent lock-keeper", "AGENT"),
        ("chat gpt-4o-mini", "LLM"),
        ("execute_tool water_level", "TOOL"),
        ("chat gpt-4o-mini", "LLM"),
    ]


def test_the_tree_of_an_answer_from_documents(spans: list[dict[str, Any]]) -> None:
    assert tree(spans, "answer") == [
        ("answer", "CHAIN"),
        ("find", "RETRIEVER"),
        ("embeddings text-embedding-3-small", "EMBEDDING"),
        ("chat gpt-4o-mini", "LLM"),
    ]


def test_every_call_has_its_messages(spans: list[dict[str, Any]]) -> None:
    """Phoenix drops all messages where one lacks its parts, or an output the reason why it ended."""
    calls = [span["attributes"] for span in spans if span["span_kind"] == "LLM"]
    assert len(calls) == 6
    for call in calls:
        assert call["llm.input_messages.0.message.content"]
        said, tool = (f"llm.output_messages.0.message.{part}" for part in ("content", "tool_calls.0.tool_call.id"))
        assert call.get(said) or call.get(tool)
        assert call["llm.finish_reason"]
        assert call["weir.cost.amount"] > 0


def test_messages_and_tokens(spans: list[dict[str, Any]]) -> None:
    call = one(spans, llm__input_messages__0__message__content="What is a weir?")
    assert call["llm.output_messages.0.message.content"].startswith("A weir holds back the flood")
    assert call["llm.model_name"] == "gpt-4o-mini"
    assert call["llm.token_count.total"] == call["llm.token_count.prompt"] + call["llm.token_count.completion"] > 0


def test_tool_calls_and_cached_tokens(spans: list[dict[str, Any]]) -> None:
    """Of cache writes Phoenix reads the name that upstream does not write."""
    first, second = sorted(
        (span["attributes"] for span in spans if span["attributes"].get("llm.provider") == "anthropic"),
        key=lambda found: float(found["llm.token_count.completion"]),
        reverse=True,
    )
    assert first["llm.finish_reason"] == "tool_call"
    assert first["llm.output_messages.0.message.tool_calls.0.tool_call.function.name"] == "water_level"
    details = "llm.token_count.prompt_details"
    assert (first[f"{details}.cache_write"], second[f"{details}.cache_read"]) == (1500, 1500)
    assert (first["llm.token_count.prompt"], second["llm.token_count.prompt"]) == (1540, 1590)


def test_one_model_span_a_call(spans: list[dict[str, Any]]) -> None:
    """Anthropic's client makes a span of its own, too."""
    calls = [span for span in spans if span["attributes"].get("llm.provider") == "anthropic"]
    transports = [span for span in spans if span["name"] == "anthropic.messages.create"]
    assert (len(calls), len(transports), {span["span_kind"] for span in transports}) == (2, 2, {"UNKNOWN"})


def test_session_user_input_and_output(phoenix: Backend, spans: list[dict[str, Any]]) -> None:
    (session,) = phoenix.get("/v1/projects/default/sessions")["data"]
    assert session["session_id"] == "visit-1"
    assert session["token_count_total"] > 0
    of_visit = [span["attributes"] for span in spans if "session.id" in span["attributes"]]
    assert len(of_visit) == 4
    assert all(found["gen_ai.conversation.id"] == found["session.id"] == "visit-1" for found in of_visit)
    root = next(span["attributes"] for span in spans if span["name"] == "answer")
    assert (root["user.id"], root["input.value"], root["output.value"]) == (
        "ada",
        '{"question": "What does a weir do?"}',
        '"It holds back the flood."',
    )
