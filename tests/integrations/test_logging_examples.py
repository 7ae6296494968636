"""The examples for structlog and Loguru, run as their docstrings say."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from otelweir.testing import Backend, ReceivedLog

if TYPE_CHECKING:
    from tests.integrations.conftest import Run


def in_order(backend: Backend) -> list[ReceivedLog]:
    """The records by time: errors have a queue of their own and may arrive before the others."""
    return sorted((log for log in backend.logs if not log.event_name), key=lambda log: log.time_unix_nano)


def test_structlog(run: Run, backend: Backend) -> None:
    pytest.importorskip("structlog", reason="needs structlog: pip install 'otelweir[structlog]'")
    printed = [json.loads(line) for line in run(["structlog_app.py"]).stdout.splitlines()]
    logs = in_order(backend)
    assert [log.body for log in logs] == [line["event"] for line in printed]
    assert [log.body for log in logs] == ["order placed"] * 3 + ["order failed"]
    assert [log.attributes["order"] for log in logs] == [line["order"] for line in printed]
    assert {log.attributes["shop"] for log in logs} == {"north"}
    assert logs[3].attributes["exception.type"] == "LookupError"
    assert logs[3].severity_number == 17
    assert "locals" not in printed[3]["exception"][0]["frames"][0]


def test_loguru(run: Run, backend: Backend) -> None:
    pytest.importorskip("loguru", reason="needs Loguru: pip install 'otelweir[loguru]'")
    printed = run(["loguru_app.py"]).stderr
    logs = in_order(backend)
    assert [log.body for log in logs] == [f"order {order} placed" for order in range(3)] + ["order failed"]
    assert all(log.body in printed for log in logs)
    assert [log.attributes.get("order") for log in logs[:3]] == [{"id": n, "items": ["tea", "cups"]} for n in range(3)]
    assert {log.attributes["shop"] for log in logs} == {"north"}
    assert logs[3].attributes["exception.type"] == "LookupError"


PATTERNS = {
    "structlog_app.py": ("structlog", ["order failed", "order placed"]),
    "loguru_app.py": ("loguru", ["order <*> placed", "order failed"]),
}


@pytest.mark.parametrize("example", PATTERNS)
def test_the_pattern_of_a_record_is_the_template_of_its_call(run: Run, backend: Backend, example: str) -> None:
    module, templates = PATTERNS[example]
    pytest.importorskip(module, reason=f"needs {module}: pip install 'otelweir[{module}]'")
    run([example], {"WEIR_LOG_SAMPLING": "on"})
    logs = in_order(backend)
    assert sorted({log.attributes["log.record.template"] for log in logs}) == templates
    assert len({log.attributes["weir.pattern.id"] for log in logs}) == 2
