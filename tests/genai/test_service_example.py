"""The service with a language model, run as its docstring says, over real HTTP."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest

from otelweir.testing import Backend

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
TEXT = "A weir holds back the flood and lets the stream through."


@pytest.fixture
def arrived(tmp_path: Path) -> Iterator[Backend]:
    """What arrived of the questions of two users."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("OTEL_", "WEIR_", "OPENAI_"))}
    output = tmp_path / "output.txt"
    with Backend() as backend, output.open("wb") as file:
        variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": backend.endpoint, "WEIR_LOG_SAMPLING": "off"}
        process = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", "--app-dir", ".", "--port", "0", "fastapi_ai:app"],
            cwd=EXAMPLES,
            env=clean | variables,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
        try:
            while "running on http://127.0.0.1:" not in (said := output.read_text()):
                assert process.poll() is None, said
                time.sleep(0.05)
            port = int(said.partition("running on http://127.0.0.1:")[2].split()[0])
            assert ask(port, "ada") == TEXT
            assert ask(port, "bob") == TEXT
        finally:
            process.terminate()
            process.wait(30)
        yield backend


def ask(port: int, user: str) -> str:
    connection = HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        headers = {"X-Session": f"visit-of-{user}", "X-User": user}
        connection.request("GET", "/answers?question=What+is+a+weir", headers=headers)
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def test_a_streamed_answer_is_one_trace_with_its_cost_its_session_and_its_user(arrived: Backend) -> None:
    for user in ("ada", "bob"):
        mine = [span for span in arrived.spans if span.attributes.get("user.id") == user]
        (request,) = [span for span in mine if span.kind == "server"]
        (chain,) = [span for span in mine if span.name == "answer"]
        (call,) = [span for span in mine if span.name == "chat gpt-4o-mini"]
        assert {span.trace_id for span in mine} == {request.trace_id}
        assert (chain.parent_span_id, call.parent_span_id) == (request.span_id, chain.span_id)
        assert {span.attributes["session.id"] for span in mine} == {f"visit-of-{user}"}
        assert chain.attributes["output.value"] == f'"{TEXT}"'
        assert call.attributes["gen_ai.response.time_to_first_chunk"] > 0
        assert call.attributes["weir.cost.amount"] > 0
        assert request.attributes["weir.trace.cost.amount"] == call.attributes["weir.cost.amount"]
        (log,) = [log for log in arrived.logs if log.scope == "assistant" and log.attributes.get("user.id") == user]
        assert log.trace_id == request.trace_id
        assert log.attributes["http.route"] == "/answers"
