"""What MLflow lists of the examples."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.backends.conftest import Backend

TOKENS = "mlflow.trace.tokenUsage"
SEARCH = {
    "locations": [{"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": "0"}}],
    "max_results": 20,
}


@pytest.fixture(scope="module")
def traces(mlflow: Backend) -> list[dict[str, Any]]:
    until = time.monotonic() + 60
    found: list[dict[str, Any]] = []
    while time.monotonic() < until and len(found) < 4:
        found = mlflow.get("/api/3.0/mlflow/traces/search", SEARCH)["traces"]
        time.sleep(0.5)
    return found


def one(traces: list[dict[str, Any]], question: str) -> dict[str, Any]:
    (found,) = (trace for trace in traces if question in trace.get("request_preview", ""))
    return found


def test_input_and_output_of_the_root(traces: list[dict[str, Any]]) -> None:
    trace = one(traces, "What does a weir do?")
    assert trace["request_preview"] == '{"question": "What does a weir do?"}'
    assert trace["response_preview"] == '"It holds back the flood."'
    assert "The Isar stands at 132 cm" in one(traces, "Can the weir")["response_preview"]


def test_session_and_user(traces: list[dict[str, Any]]) -> None:
    about = one(traces, "What does a weir do?")["trace_metadata"]
    assert (about["mlflow.trace.session"], about["mlflow.trace.user"]) == ("visit-1", "ada")


def test_tokens_and_cost_of_every_trace(traces: list[dict[str, Any]]) -> None:
    assert len(traces) == 4
    for trace in traces:
        about = trace["trace_metadata"]
        assert json.loads(about[TOKENS])["total_tokens"] > 0
        assert json.loads(about["mlflow.trace.cost"])["total_cost"] > 0


def test_cached_tokens_and_their_cost(traces: list[dict[str, Any]]) -> None:
    """Cached tokens are part of the input; MLflow takes the cost that we write, and sums it."""
    (about,) = (trace["trace_metadata"] for trace in traces if "cache_read_input" in trace["trace_metadata"][TOKENS])
    assert json.loads(about[TOKENS]) == {
        "input_tokens": 1540 + 1590,
        "output_tokens": 30 + 15,
        "total_tokens": 1540 + 1590 + 30 + 15,
        "cache_read_input_tokens": 1500,
        "cache_creation_input_tokens": 1500,
    }
    cost = json.loads(about["mlflow.trace.cost"])
    assert cost["input_cost"] == pytest.approx((40 + 90 + 1500 * 1.25 + 1500 * 0.1) / 1e6)
    assert cost["output_cost"] == pytest.approx((30 + 15) * 5 / 1e6)


def test_the_tree_of_an_agent_with_its_tool(mlflow: Backend, traces: list[dict[str, Any]]) -> None:
    (agent,) = (trace for trace in traces if trace["tags"]["service.name"] == "langchain_agent")
    spans = mlflow.get(f"/ajax-api/3.0/mlflow/get-trace-artifact?request_id={agent['trace_id']}")["spans"]
    first, *below = sorted(spans, key=lambda span: int(span["start_time_unix_nano"]))
    assert (first["name"], first["parent_span_id"]) == ("invoke_agent lock-keeper", None)
    assert [(span["name"], span["parent_span_id"]) for span in below] == [
        ("chat gpt-4o-mini", first["span_id"]),
        ("execute_tool water_level", first["span_id"]),
        ("chat gpt-4o-mini", first["span_id"]),
    ]
    asked = json.loads(below[0]["attributes"]["gen_ai.output.messages"])
    assert asked[0]["parts"][0]["name"] == "water_level"
