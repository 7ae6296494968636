"""No secret leaves a process under the launcher: not in any part of any signal, by whatever way it leaves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from otelweir.testing import Backend

if TYPE_CHECKING:
    from tests.distro.conftest import Launch

SERVICE = """
    import logging
    from opentelemetry import metrics, trace

    log = logging.getLogger("shop")
    tracer = trace.get_tracer("shop")
    SECRET = "zq7secret"
    link = trace.Link(trace.SpanContext(1, 2, True), {"token": f"{SECRET}01"})
    with tracer.start_as_current_span(f"POST /users/{SECRET}02@example.org", links=[link]) as span:
        span.set_attribute("db.password", f"{SECRET}03")
        span.set_attribute("url.full", f"https://u:{SECRET}04@x.io/?access_token={SECRET}05")
        span.set_attribute("gen_ai.input.messages", [{"role": "user", "content": f"my password is {SECRET}06"}])
        span.add_event("sent", {"to": f"{SECRET}07@example.org"})
    try:
        with tracer.start_as_current_span("fails"):
            raise ValueError(f"token={SECRET}08 was refused")
    except ValueError:
        log.exception("failed with api_key=%s", f"{SECRET}09", extra={"client_secret": f"{SECRET}10"})
    log.warning("plain order 4711", extra={"order": {"token": f"{SECRET}11"}})
    for n in range(3):
        log.info(f"password={SECRET}12 in a template")
    metrics.get_meter("shop").create_counter("logins").add(1, {"user": f"{SECRET}13@example.org", "route": "/login"})
"""


def environ(backend: Backend, folder: Path, **more: str) -> dict[str, str]:
    return {
        "OTEL_SERVICE_NAME": "shop",
        "OTEL_RESOURCE_ATTRIBUTES": "owner=zq7secret14@example.org,team=shop",
        "OTEL_EXPORTER_OTLP_ENDPOINT": backend.endpoint,
        "OTEL_EXPORTER_OTLP_COMPRESSION": "none",
        "WEIR_SPOOL_DIR": str(folder / "spool"),
        **more,
    }


@pytest.mark.parametrize("spool", ["true", "false"])
def test_no_secret_leaves(launch: Launch, backend: Backend, tmp_path: Path, spool: str) -> None:
    done = launch(SERVICE, **environ(backend, tmp_path, WEIR_SPOOL=spool))
    assert done.code == 0, done.err
    assert {span.name for span in backend.spans} == {"POST /users/[redacted:email]", "fails"}
    bodies = [log.body for log in backend.logs if log.scope == "shop"]
    assert "failed with api_key=[redacted:name]" in bodies
    assert "plain order 4711" in bodies
    assert all(b"zq7secret" not in request.body for request in backend.requests)
    everything = repr((backend.spans, backend.logs, backend.metrics))
    assert "zq7secret" not in everything
    assert "weir.redact.replaced" in everything
    kept = [path for path in (tmp_path / "spool").rglob("*") if path.is_file()]
    assert all(b"zq7secret" not in path.read_bytes() for path in kept)


def test_on_the_console_neither(launch: Launch, backend: Backend, tmp_path: Path) -> None:
    names = {f"OTEL_{signal}_EXPORTER": "console" for signal in ("TRACES", "LOGS", "METRICS")}
    done = launch(SERVICE, **environ(backend, tmp_path, **names))
    assert "POST /users/[redacted:email]" in done.out
    assert "zq7secret" not in done.out


def test_it_can_be_turned_off(launch: Launch, backend: Backend, tmp_path: Path) -> None:
    launch(SERVICE, **environ(backend, tmp_path, WEIR_REDACT="false"))
    assert "POST /users/zq7secret02@example.org" in {span.name for span in backend.spans}


def test_a_policy_decides_from_the_beginning(launch: Launch, backend: Backend, tmp_path: Path) -> None:
    policy = tmp_path / "policy.json"
    policy.write_text('{"redact": {"allow": "*@example.org", "signals": {"traces": {"action": "drop"}}}}')
    done = launch(SERVICE, **environ(backend, tmp_path, WEIR_POLICY_FILE=str(policy)))
    assert done.code == 0, done.err
    [span] = [span for span in backend.spans if span.name == "POST /users/zq7secret02@example.org"]
    assert "db.password" not in span.attributes
    assert "zq7secret03" not in repr(backend.spans)
