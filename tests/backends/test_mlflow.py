"""What MLflow lists of the examples."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.backends.conftest import Backend

pytestmark = pytest.mark.timeout(300)

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
        assert json.loads(about["mlflow.trace.tokenUsage"])["total_tokens"] > 0
        assert json.loads(about["mlflow.trace.cost"])["total_cost"] > 0
