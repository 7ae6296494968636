"""`init` may come twice, late, under the launcher or without an instrumentation: each request has one span at most."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from otelweir import errors
from otelweir.testing import Backend

if TYPE_CHECKING:
    from tests.integrations.conftest import Run

FASTAPI = """
import logging, sys, warnings
warnings.simplefilter("ignore")
from fastapi import FastAPI, Request
from fastapi.testclient import TestClient
import otelweir
from otelweir import distro
from otelweir.integrations.fastapi import init

log = logging.getLogger("shop")
log.setLevel(logging.INFO)
app = FastAPI()

@app.get("/orders/{order}")
def show(order: int, request: Request):
    log.info("asked")
    return {}

client = TestClient(app)
def ask():
    return client.get("/orders/7", headers={"X-Request-ID": "r-1"}).headers["x-request-id"]
def done():
    distro.active().shutdown()
"""

FLASK = """
import logging
import flask
import otelweir
from otelweir import distro
from otelweir.integrations.flask import init

log = logging.getLogger("shop")
log.setLevel(logging.INFO)
app = flask.Flask(__name__)

@app.get("/orders/<order>")
def show(order):
    log.info("asked")
    return {}

def ask():
    return app.test_client().get("/orders/7", headers={"X-Request-ID": "r-1"}).headers["x-request-id"]
def done():
    distro.active().shutdown()
"""

SETUPS = {"fastapi": (FASTAPI, "/orders/{order}"), "flask": (FLASK, "/orders/<order>")}


@pytest.fixture(params=list(SETUPS))
def framework(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    pytest.importorskip(name, reason=f"needs {name}: pip install 'otelweir[{name}]'")
    if name == "fastapi":
        pytest.importorskip("httpx", reason="needs httpx: pip install httpx")
    return name


@pytest.fixture
def tell(framework: str, run: Run) -> Run:
    """Runs lines after the set-up of the framework's application."""

    def told(lines: str, variables: dict[str, str] | None = None, *, launched: bool = False) -> object:
        return run(["-c", SETUPS[framework][0] + lines], variables, launched=launched)

    return told  # type: ignore[return-value]


def check(backend: Backend, framework: str, *, asked: int = 1, spans: int = 1) -> None:
    logs = [log for log in backend.logs if log.scope == "shop"]
    found = [(log.attributes["http.route"], log.attributes["weir.request.id"]) for log in logs]
    assert found == [(SETUPS[framework][1], "r-1")] * asked
    assert sum(span.kind == "server" for span in backend.spans) == spans
    if spans:
        assert {log.trace_id for log in logs} == {span.trace_id for span in backend.spans if span.kind == "server"}


def test_twice_changes_nothing(tell: Run, backend: Backend, framework: str) -> None:
    tell("init(app)\ninit(app)\nassert ask() == 'r-1'\ndone()")
    check(backend, framework)


def test_after_the_first_request_works(tell: Run, backend: Backend, framework: str) -> None:
    done = tell("otelweir.configure()\ntry: ask()\nexcept KeyError: pass\ninit(app)\nask()\ndone()")
    logs = [log for log in backend.logs if log.scope == "shop"]
    assert [log.attributes.get("weir.request.id") for log in logs] == [None, "r-1"]
    # Flask takes no instrumentation then; that is said.
    assert ("too late" in done.stderr) == (framework == "flask")


def test_under_the_launcher_adds_no_second_span(tell: Run, backend: Backend, framework: str) -> None:
    done = tell("init(app)\nask()\ndone()", launched=True)
    check(backend, framework)
    assert "WEIR-CONFIG-004" not in done.stderr


def test_respects_that_the_instrumentation_is_unwanted(tell: Run, backend: Backend, framework: str) -> None:
    tell("init(app)\nask()\ndone()", {"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "fastapi , flask"})
    # FastAPI makes spans of its own, where OpenTelemetry's instrumentation does not.
    own = [span for span in backend.spans if span.scope == "fastapi" and span.kind == "server"]
    check(backend, framework, spans=len(own))


def test_respects_that_every_instrumentation_is_unwanted(tell: Run, backend: Backend) -> None:
    tell("init(app)\nassert ask() == 'r-1'\ndone()", {"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "*"})
    assert not [span for span in backend.spans if span.scope.startswith("opentelemetry.instrumentation")]


def test_with_logs_off_the_application_works(tell: Run, backend: Backend) -> None:
    tell("init(app)\nassert ask() == 'r-1'\ndone()", {"OTEL_LOGS_EXPORTER": "none"})
    assert backend.logs == []
    assert sum(span.kind == "server" for span in backend.spans) == 1


def test_with_the_sdk_disabled_the_application_works(tell: Run, backend: Backend) -> None:
    tell("init(app)\nassert ask() == 'r-1'\ndone()", {"OTEL_SDK_DISABLED": "true"})
    assert backend.requests == []


def test_a_name_that_is_no_setting_is_a_type_error(tell: Run) -> None:
    tell(
        "try: init(app, log_rate={})\n"
        "except TypeError as error: assert 'log_rates' in str(error)\n"
        "else: raise SystemExit(1)"
    )


class TestAMissingFramework:
    @pytest.fixture(autouse=True)
    def _restore(self) -> Iterator[None]:
        before = dict(sys.modules)
        yield
        sys.modules.clear()
        sys.modules.update(before)

    @pytest.mark.parametrize(
        ("module", "extra"),
        [
            ("otelweir.integrations.fastapi", "fastapi"),
            ("otelweir.integrations.flask", "flask"),
            ("otelweir.integrations.django.apps", "django"),
            ("otelweir.integrations.structlog", "structlog"),
            ("otelweir.integrations.loguru", "loguru"),
        ],
    )
    def test_says_what_to_install(self, module: str, extra: str) -> None:
        for name in list(sys.modules):
            if name.startswith("otelweir.integrations") or name.partition(".")[0] == extra:
                del sys.modules[name]
        sys.modules[extra] = None  # type: ignore[assignment]
        with pytest.raises(errors.MissingExtra, match=rf"pip install 'otelweir\[{extra}\]'"):
            importlib.import_module(module)
