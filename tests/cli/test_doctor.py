"""`weir doctor` as a command: what it prints, and what it ends with."""

from __future__ import annotations

import json
import os
import pty
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from otelweir.cli import cli
from otelweir.pipeline.spool import Group, Spool
from otelweir.testing import Answer, Backend

CHOICE = {"OTEL_SERVICE_NAME": "cart", "OTEL_PYTHON_DISTRO": "weir", "OTEL_PYTHON_CONFIGURATOR": "weir"}


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "WEIR_"))}
    return {**kept, **CHOICE, **more}


def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from otelweir.cli import main; main()", "doctor", *arguments],
        env=environment(**environ),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class TestExitCode:
    def test_is_0_when_everything_answers(self) -> None:
        with Backend() as backend:
            done = run(OTEL_EXPORTER_OTLP_ENDPOINT=backend.endpoint)
            assert sorted(request.path for request in backend.requests) == ["/v1/logs", "/v1/metrics", "/v1/traces"]
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.endswith("Nothing needs doing.\n")

    def test_is_1_when_nobody_listens_and_says_what_to_do(self, free_port: int) -> None:
        done = run(OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{free_port}")
        assert (done.returncode, done.stderr) == (1, "")
        assert "refuses the connection" in done.stdout
        assert "Start the collector (or `weir dev`)" in done.stdout
        assert done.stdout.endswith("1 problem: see what to do above.\n")

    def test_is_1_when_the_key_is_wrong_and_does_not_show_it(self) -> None:
        with Backend() as backend:
            backend.default_answer = Answer(401)
            done = run(OTEL_EXPORTER_OTLP_ENDPOINT=backend.endpoint, OTEL_EXPORTER_OTLP_HEADERS="api-key=hush")
        assert done.returncode == 1
        assert "answers 401" in done.stdout
        assert "api-key=***" in done.stdout
        assert "hush" not in done.stdout + done.stderr

    def test_is_1_in_time_when_the_server_hangs(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            started = time.monotonic()
            done = run("--timeout", "0.5", OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{server.getsockname()[1]}")
            assert time.monotonic() - started < 20
        assert done.returncode == 1
        assert "does not answer within" in done.stdout

    def test_is_1_for_a_setting_that_cannot_be_used(self) -> None:
        done = run("--no-network", WEIR_LOG_FIRST="none")
        assert done.returncode == 1
        assert "problem: WEIR-CONFIG-001: WEIR_LOG_FIRST='none' is not a whole number, 1 or more" in done.stdout

    def test_is_2_for_wrong_usage(self) -> None:
        assert run("--timeout", "soon").returncode == 2


class TestSecrets:
    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("OTEL_EXPORTER_OTLP_HEADERS", "Authorization: Bearer SEKRET"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "Authorization: Bearer SEKRET=="),
            ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=SEKRET;x"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=SEK%0ARET"),
            ("OTEL_EXPORTER_OTLP_HEADER", "api-key=SEKRET"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "u:SEKRET@127.0.0.1:1"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://u:SEKRET/x@127.0.0.1:1"),
            ("WEIR_POLICY_URL", "bob:SEKRET@h"),
            ("WEIR_POLICY_FILE", "https://u:SEKRET@h/p"),
        ],
    )
    def test_are_neither_printed_nor_logged(self, name: str, value: str, free_port: int) -> None:
        environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{free_port}", name: value}
        for arguments in ((), ("--json",)):
            done = run(*arguments, **environ)
            assert done.returncode == 1
            assert done.stderr == ""
            assert not any(secret in done.stdout for secret in ("SEK", "RET=", "RET\n", "KRET"))


class TestPropagators:
    def test_that_stop_opentelemetry_do_not_stop_the_doctor(self) -> None:
        """opentelemetry.propagate raises when it is imported."""
        done = run("--no-network", OTEL_PROPAGATORS="bogus")
        assert (done.returncode, done.stderr) == (1, "")
        assert "problem: WEIR-CONFIG-005: OTEL_PROPAGATORS=bogus is not a list of" in done.stdout
        assert done.stdout.endswith("1 problem: see what to do above.\n")


class TestJson:
    def test_is_one_object_and_nothing_else(self, free_port: int) -> None:
        done = run("--json", WEIR_LOG_BUDGET="9", OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{free_port}")
        told = json.loads(done.stdout)
        assert (done.returncode, done.stderr, told["ok"]) == (1, "", False)
        assert {"name": "WEIR_LOG_BUDGET", "value": "9", "origin": "variable"} in told["settings"]
        assert [finding["code"] for finding in told["findings"] if finding["level"] == "problem"] == ["WEIR-SERVER-003"]
        assert {"name": "WEIR_POLICY_FILE", "value": None, "origin": "default"} in told["settings"]
        assert {package["name"] for package in told["packages"]} >= {"opentelemetry-api", "opentelemetry-sdk"}
        assert [one["signal"] for one in told["endpoints"]] == ["traces", "metrics", "logs"]

    def test_leaves_the_network_alone_when_told_so(self) -> None:
        with Backend() as backend:
            told = json.loads(run("--json", "--no-network", OTEL_EXPORTER_OTLP_ENDPOINT=backend.endpoint).stdout)
            assert backend.requests == []
        assert told["ok"] is True
        assert {one["state"] for one in told["endpoints"]} == {"not asked"}


class TestText:
    def test_in_a_pipe_has_no_colours(self) -> None:
        done = run("--no-network")
        assert "\x1b" not in done.stdout
        assert re.search(r"^  WEIR_LOG_SAMPLING +on +default$", done.stdout, re.MULTILINE)

    def test_in_a_terminal_has(self) -> None:
        ours, theirs = pty.openpty()
        with subprocess.Popen(
            [sys.executable, "-c", "from otelweir.cli import main; main()", "doctor", "--no-network"],
            env=environment(TERM="xterm-256color", COLUMNS="100", WEIR_LOG_FIRST="none"),
            stdout=theirs,
        ) as process:
            os.close(theirs)
            shown = b""
            while True:
                try:
                    part = os.read(ours, 65536)
                except OSError:  # what Linux says at the end of a terminal
                    break
                if not part:
                    break
                shown += part
            assert process.wait(30) == 1
        os.close(ours)
        text = shown.decode()
        assert "\x1b[1mSettings of Weir\x1b[0m" in text
        assert "✗" in text
        assert "WEIR-CONFIG-001" in text

    def test_shows_what_waits(self, tmp_path: Path) -> None:
        spool = Spool(tmp_path, min_free_bytes=0)
        spool.append("traces", (Group(b"", b""), b"span"))
        told = {"weir_status": 1, "time": time.time(), "lanes": {"traces": {"waiting": 1, "delivered": 41}}}
        spool.publish(told)
        done = run("--no-network", WEIR_SPOOL_DIR=str(tmp_path))
        spool.close()
        assert re.search(rf"^  {os.getpid()} +traces +41 +1 +0 +\d+ s +running$", done.stdout, re.MULTILINE)
        assert re.search(rf"^  folder +{tmp_path} +variable$", done.stdout, re.MULTILINE)

    def test_help_has_examples(self) -> None:
        done = CliRunner().invoke(cli, ["doctor", "--help"])
        assert done.exit_code == 0
        assert "kubectl exec deploy/cart -- weir doctor" in done.output
