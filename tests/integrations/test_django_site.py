"""Django beyond the example: users, asynchronous views, 404, mixed middleware, settings that cannot be used."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from otelweir.testing import ReceivedLog

if TYPE_CHECKING:
    from tests.integrations.conftest import Serve, Service

pytest.importorskip("django", reason="needs Django: pip install 'otelweir[django]'")

OURS = "otelweir.integrations.django.middleware.RequestContextMiddleware"
SPANS = "opentelemetry.instrumentation.django.middleware.otel_middleware._DjangoMiddleware"

SERVERS = {
    "wsgi": "gunicorn --chdir {site} --bind 127.0.0.1:{{port}} --threads 4 --log-level warning django_site:application",
    "asgi": "uvicorn --app-dir {site} --port {{port}} --log-level warning django_site:asgi",
}


@pytest.fixture(scope="module", params=["wsgi", "asgi"])
def site(request: pytest.FixtureRequest, serve: Serve, tmp_path_factory: pytest.TempPathFactory) -> Service:
    server = SERVERS[request.param]
    pytest.importorskip(server.split()[0], reason=f"needs {server.split()[0]}: pip install {server.split()[0]}")
    command = server.format(site=Path(__file__).parent)
    variables = {"SITE_SESSIONS": str(tmp_path_factory.mktemp("sessions"))}
    if request.param == "asgi":
        variables["SITE_LISTS_OURS"] = "yes"
    return serve(command.split(), variables)


@pytest.fixture
def logs(site: Service) -> Callable[[str, int], list[ReceivedLog]]:
    def of_request(request_id: str, count: int) -> list[ReceivedLog]:
        def found() -> list[ReceivedLog]:
            return [log for log in site.backend.logs if log.attributes.get("weir.request.id") == request_id]

        site.backend.wait_for(lambda: len(found()) >= count)
        return found()

    return of_request


Logs = Callable[[str, int], list[ReceivedLog]]


@pytest.mark.parametrize("view", ["who", "awho"])
def test_a_user_is_on_the_logs_once_the_application_has_asked_for_it(site: Service, logs: Logs, view: str) -> None:
    """Before that, it would take a query to know; a log call must not make one."""
    cookie = site.get("/login").headers["set-cookie"].partition(";")[0]
    answer = site.get(f"/in/a/{view}", Cookie=cookie, X_Request_ID=f"{view}-1")
    assert json.loads(answer.body) == {"user": "ann"}
    users = {log.body: log.attributes.get("user.id") for log in logs(f"{view}-1", 3)}
    assert users == {"before the view": None, "before asking": None, "after asking": "77"}


def test_nobody_has_no_id(site: Service, logs: Logs) -> None:
    site.get("/in/a/who", X_Request_ID="nobody-1")
    assert [log.attributes.get("user.id") for log in logs("nobody-1", 3)] == [None] * 3


def test_the_route_has_what_is_included(site: Service, logs: Logs) -> None:
    site.get("/in/a/who", X_Request_ID="route-1")
    routes = {log.body: log.attributes.get("http.route") for log in logs("route-1", 3)}
    assert routes == {
        "before the view": None,
        "before asking": "in/<slug:part>/who",
        "after asking": "in/<slug:part>/who",
    }


def test_what_django_says_about_a_404_has_the_context(site: Service, logs: Logs) -> None:
    """Django says it when the last middleware has returned."""
    assert site.get("/in/a/missing", X_Request_ID="missing-1").status == 404
    said = [log for log in logs("missing-1", 2) if log.scope == "django.request"]
    assert [log.body for log in said] == ["Not Found: /in/a/missing"]
    assert said[0].attributes["http.route"] == "in/<slug:part>/missing"
    assert said[0].trace_id


def test_an_asynchronous_stream_has_the_context(site: Service, logs: Logs) -> None:
    assert site.get("/in/a/stream", X_Request_ID="stream-1").body == b"012"
    said = [log for log in logs("stream-1", 4) if log.body.startswith("part")]
    assert [log.body for log in said] == ["part 0", "part 1", "part 2"]
    for log in said:
        assert log.attributes["http.route"] == "in/<slug:part>/stream"
        assert log.trace_id


def test_the_context_does_not_outlive_the_request(site: Service, logs: Logs) -> None:
    """Worker threads serve one request after the other; what has no id of its own must not get the last one's."""
    for number in range(8):
        site.get("/in/a/missing", X_Request_ID=f"after-{number}")
    for number in range(8):
        bodies = sorted(log.body for log in logs(f"after-{number}", 2))
        assert bodies == ["Not Found: /in/a/missing", "before the view"]


def test_the_middleware_is_there_once_and_behind_the_span(site: Service) -> None:
    listed = json.loads(site.get("/middleware").body)["middleware"]
    assert listed.count(OURS) == 1
    assert listed.count(SPANS) == 1
    assert listed.index(SPANS) < listed.index(OURS)


def test_settings_that_cannot_be_used_are_reported_and_the_site_runs(site: Service) -> None:
    assert "WEIR_LOG_FIRST='many' is not a whole number" in site.output
    assert "WEIR['log_rate'] in Django's settings is not a setting of Weir; did you mean log_rates?" in site.output
    assert (
        "WEIR['LOG_SAMPLING'] in Django's settings is not a setting of Weir; did you mean log_sampling?" in site.output
    )


PROJECT = """
import logging
from django.http import HttpResponse
from django.urls import path

SECRET_KEY = "only a test"
ALLOWED_HOSTS = ["127.0.0.1"]
ROOT_URLCONF = __name__
INSTALLED_APPS = ["otelweir.integrations.django"]
LOGGING = {"version": 1, "disable_existing_loggers": False, "loggers": {"site": {"level": "INFO"}}}

def show(request, order):
    logging.getLogger("site").info("asked")
    return HttpResponse()

urlpatterns = [path("orders/<int:order>", show)]
"""


def test_under_the_launcher_a_request_has_one_span_and_nothing_is_said(serve: Serve, tmp_path: Path) -> None:
    pytest.importorskip("gunicorn", reason="needs gunicorn: pip install gunicorn")
    (tmp_path / "project.py").write_text(PROJECT)
    server = "opentelemetry-instrument gunicorn --bind 127.0.0.1:{port} --log-level warning"
    application = "django.core.wsgi:get_wsgi_application()"
    variables = {"DJANGO_SETTINGS_MODULE": "project", "PYTHONPATH": str(tmp_path), "OTEL_SERVICE_NAME": "site"}
    site = serve([*server.split(), application], variables)
    assert site.get("/orders/7", X_Request_ID="r-1").headers["x-request-id"] == "r-1"
    site.backend.wait_for(lambda: site.backend.logs and site.backend.spans)
    (log,) = [log for log in site.backend.logs if log.scope == "site"]
    (span,) = [span for span in site.backend.spans if span.kind == "server"]
    assert log.trace_id == span.trace_id
    assert log.attributes["http.route"] == span.attributes["http.route"] == "orders/<int:order>"
    assert log.attributes["weir.request.id"] == "r-1"
    assert "WEIR-" not in site.output
