"""The example of tracking, run as its docstring says."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from otelweir.testing import Backend

if TYPE_CHECKING:
    from tests.integrations.conftest import Run


@pytest.mark.parametrize("launched", [True, False])
def test_the_tree_arrives(run: Run, backend: Backend, launched: bool) -> None:
    done = run(["track_app.py"], launched=launched)
    assert "A weir holds back" in done.stdout
    first, second = [span for span in backend.spans if not span.parent_span_id]
    assert first.name == second.name == "question"
    assert json.loads(first.attributes["input.value"]) == {"question": "What does a weir do?"}
    assert json.loads(first.attributes["output.value"]).startswith("A weir holds back")
    below = {span.name: span for span in backend.spans if span.trace_id == first.trace_id}
    assert set(below) == {"question", "answer", "find", "chat", "count_words"}
    agent = below.pop("answer")
    assert agent.parent_span_id == below.pop("question").span_id
    assert {span.parent_span_id for span in below.values()} == {agent.span_id}
    assert {span.attributes["session.id"] for span in backend.spans} == {"visit-1"}
    assert below["count_words"].attributes["gen_ai.tool.description"] == "How many words a text has."
    assert "key" not in below["count_words"].attributes["input.value"]
    scores = [log for log in backend.logs if log.event_name == "gen_ai.evaluation.result"]
    assert scores[0].span_id == agent.span_id
    said = [log for log in backend.logs if not log.event_name]
    assert {log.attributes["user.id"] for log in said} == {"ada"}
