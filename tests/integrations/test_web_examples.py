"""The web examples, run as their docstrings say, over real HTTP: what arrives is complete and does not mix."""

from __future__ import annotations

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from otelweir.testing import ReceivedLog, ReceivedSpan

if TYPE_CHECKING:
    from tests.integrations.conftest import Serve, Service


@dataclass(frozen=True)
class Example:
    """One way to run one example.

    Attributes:
        needs: The package without which it cannot run, as one imports and as one installs it.
        command: How to run it.
        route: The framework's template of `/orders/7`.
        export_route: The same of `/export`.
    """

    needs: tuple[str, str]
    command: str
    route: str
    export_route: str = "/export"

    @property
    def launched(self) -> bool:
        return self.command.startswith("opentelemetry-instrument ")


FLASK = (("flask", "otelweir[flask]"), "/orders/<int:order>")
FASTAPI = (("fastapi", "otelweir[fastapi]"), "/orders/{order}")
DJANGO = (("django", "otelweir[django]"), "orders/<int:order>", "export")
UVICORN = "uvicorn --app-dir . --port {port} --log-level warning"
GUNICORN = "gunicorn --bind 127.0.0.1:{port} --threads 8 --log-level warning"

EXAMPLES = {
    "flask": Example(FLASK[0], "{python} flask_service.py", FLASK[1]),
    "flask-gunicorn": Example(FLASK[0], f"{GUNICORN} flask_service:app", FLASK[1]),
    "flask-launched": Example(FLASK[0], "opentelemetry-instrument {python} flask_service.py", FLASK[1]),
    "fastapi": Example(FASTAPI[0], f"{UVICORN} fastapi_service:app", FASTAPI[1]),
    "fastapi-launched": Example(FASTAPI[0], f"opentelemetry-instrument {UVICORN} fastapi_service:app", FASTAPI[1]),
    "django": Example(DJANGO[0], "{python} django_service.py runserver --noreload {port}", *DJANGO[1:]),
    "django-gunicorn": Example(DJANGO[0], f"{GUNICORN} django_service:application", *DJANGO[1:]),
    "django-uvicorn": Example(DJANGO[0], f"{UVICORN} django_service:asgi", *DJANGO[1:]),
}


@pytest.fixture(scope="module", params=list(EXAMPLES))
def example(request: pytest.FixtureRequest) -> Example:
    found = EXAMPLES[request.param]
    module, install = found.needs
    pytest.importorskip(module, reason=f"needs {module}: pip install '{install}'")
    for server in ("uvicorn", "gunicorn"):
        if server in found.command:
            pytest.importorskip(server, reason=f"needs {server}: pip install {server}")
    return found


@pytest.fixture(scope="module")
def service(example: Example, serve: Serve) -> Service:
    # Under the launcher, what the code says about the service comes too late.
    return serve(example.command.split(), {"OTEL_SERVICE_NAME": "shop"} if example.launched else {})


def logs_of(service: Service, request_id: str, count: int) -> list[ReceivedLog]:
    """The logs of the example's own logger in one request, once there are that many."""

    def found() -> list[ReceivedLog]:
        return [
            log
            for log in service.backend.logs
            if log.scope == "shop" and log.attributes.get("weir.request.id") == request_id
        ]

    service.backend.wait_for(lambda: len(found()) >= count)
    return found()


def server_spans(service: Service, trace_id: str) -> list[ReceivedSpan]:
    def found() -> list[ReceivedSpan]:
        return [span for span in service.backend.spans if span.trace_id == trace_id and span.kind == "server"]

    service.backend.wait_for(found)
    return found()


def test_the_logs_of_a_request_carry_its_context(example: Example, service: Service) -> None:
    answer = service.get("/orders/7", X_Request_ID="try-1")
    assert (answer.status, json.loads(answer.body)) == (200, {"order": 7})
    assert answer.headers["x-request-id"] == "try-1"
    first, second, *_ = logs_of(service, "try-1", 2)
    assert [first.body, second.body] == ["looking up order 7", "found order 7"]
    assert first.attributes["shop"] == {"order": 7}
    assert first.resource["service.name"] == "shop"
    for log in (first, second):
        assert log.attributes["http.route"] == example.route
        assert log.attributes["http.request.method"] == "GET"
        assert log.trace_id
        assert log.span_id


def test_a_request_has_one_server_span_and_its_logs_are_in_that_trace(example: Example, service: Service) -> None:
    service.get("/orders/8", X_Request_ID="try-2")
    log = logs_of(service, "try-2", 2)[0]
    (span,) = server_spans(service, log.trace_id)
    assert span.attributes["http.route"] == example.route
    # Nor may anything else have made another one in a trace of its own.
    assert sum("/orders/8" in str(span.attributes) for span in service.backend.spans) == 1


def test_a_request_without_an_id_gets_one(service: Service) -> None:
    made = service.get("/orders/9").headers["x-request-id"]
    assert len(made) == 32
    assert logs_of(service, made, 2)


def test_an_id_that_is_not_sane_is_not_taken_over(service: Service) -> None:
    made = service.get("/orders/9", X_Request_ID="a" * 500).headers["x-request-id"]
    assert len(made) == 32


def test_errors_carry_the_context_too(example: Example, service: Service) -> None:
    """Frameworks and servers log them, some when the request is over."""
    assert service.get("/orders/13", X_Request_ID="lost-1").status == 500
    service.backend.wait_for(
        lambda: any(log.attributes.get("exception.type") == "LookupError" for log in service.backend.logs)
    )
    failures = [log for log in service.backend.logs if log.attributes.get("exception.type") == "LookupError"]
    for log in failures:
        assert log.severity_number >= 17
        assert log.attributes["weir.request.id"] == "lost-1", log
        assert log.attributes["http.route"] == example.route, log
        assert log.trace_id, log


def test_a_stream_carries_the_context(example: Example, service: Service) -> None:
    assert service.get("/export", X_Request_ID="stream-1").body == b"0\n1\n2\n"
    logs = logs_of(service, "stream-1", 3)
    assert [log.body for log in logs] == [f"exporting order {order}" for order in range(3)]
    for log in logs:
        assert log.attributes["http.route"] == example.export_route
        assert log.trace_id


def test_a_known_user_is_on_the_logs(example: Example, service: Service) -> None:
    service.get("/orders/10", X_Request_ID="user-1", X_User="ann")
    expected = None if "django" in example.command else "ann"  # that example has no users
    assert [log.attributes.get("user.id") for log in logs_of(service, "user-1", 2)[:2]] == [expected] * 2


def test_concurrent_requests_do_not_mix(example: Example, service: Service) -> None:
    orders = range(100, 140)
    with ThreadPoolExecutor(16) as pool:
        answers = pool.map(lambda order: service.get(f"/orders/{order}", X_Request_ID=f"many-{order}"), orders)
    assert [answer.headers["x-request-id"] for answer in answers] == [f"many-{order}" for order in orders]

    def found() -> list[ReceivedLog]:
        return [log for log in service.backend.logs if str(log.attributes.get("weir.request.id")).startswith("many-")]

    service.backend.wait_for(lambda: sum(log.body.startswith("found order") for log in found()) == len(orders))
    traces: dict[str, set[str]] = {}
    for log in found():
        order = log.attributes["weir.request.id"].removeprefix("many-")
        if log.scope == "shop":
            assert order in log.body
        assert log.attributes["http.route"] == example.route
        traces.setdefault(order, set()).add(log.trace_id)
    assert {len(ids) for ids in traces.values()} == {1}
    assert len(set.union(*traces.values())) == len(orders)
    seen = Counter((log.body, log.attributes["weir.request.id"]) for log in found() if log.scope == "shop")
    assert set(seen.values()) == {1}


def test_nothing_went_wrong(example: Example, service: Service) -> None:
    warnings = [line for line in service.output.splitlines() if "WEIR-" in line]
    # The examples name their service; the launcher has the last word, and that is said once.
    assert [line for line in warnings if "WEIR-CONFIG-004" not in line] == []
    assert len(warnings) == example.launched
