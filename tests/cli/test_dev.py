"""`weir dev` as a user meets it: in a process of its own, with signals."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from otelweir.cli.dev import command

PROGRAM = "from otelweir.cli.dev import command; command()"
Launch = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def launch() -> Iterator[Launch]:
    started: list[subprocess.Popen[str]] = []

    def launch(*arguments: str, **options: Any) -> subprocess.Popen[str]:
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options
        process = subprocess.Popen([sys.executable, "-c", PROGRAM, *arguments], **options)
        started.append(process)
        return process

    yield launch
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def url_in(text: str) -> str:
    found = re.search(r"http://127\.0\.0\.1:\d+", text)
    assert found, text
    return found[0]


def send(url: str, **record: Any) -> None:
    body = json.dumps({"resourceLogs": [{"scopeLogs": [{"logRecords": [record]}]}]}).encode()
    request = urllib.request.Request(f"{url}/v1/logs", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        assert answer.status == 200


class TestPlain:
    @pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
    def test_lines_come_and_a_signal_ends_it_with_a_summary(self, launch: Launch, how: signal.Signals) -> None:
        process = launch("--plain", "--port", "0")
        url = url_in(first_line(process))
        send(url, severityNumber=17, body={"stringValue": "payment failed"})
        assert "error    unknown_service: payment failed" in first_line(process)
        assert "totals   logs 1 logged, 1 received (0.0% saved), 1 error" in first_line(process)
        process.send_signal(how)
        out, err = process.communicate(timeout=30)
        assert (process.returncode, err) == (0, "")
        assert re.fullmatch(r"Stopped after \d+ s: 1 logged, 1 received .* --db FILE would keep it\n", out)

    def test_a_pipe_gets_lines_unasked(self, launch: Launch) -> None:
        process = launch("--port", "0")
        assert first_line(process).startswith("Listening on http://127.0.0.1:")
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=30)
        assert "\x1b" not in out

    def test_what_arrived_just_before_the_end_is_in_the_summary(self, launch: Launch) -> None:
        process = launch("--plain", "--port", "0")
        url = url_in(first_line(process))
        send(url, severityNumber=9)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=30)
        assert "1 logged, 1 received" in out.splitlines()[-1]

    def test_a_file_keeps_it(self, launch: Launch, tmp_path: Path) -> None:
        path = tmp_path / "telemetry.sqlite3"
        for expected in (1, 2):
            process = launch("--plain", "--port", "0", "--db", str(path))
            send(url_in(first_line(process)), severityNumber=9)
            process.send_signal(signal.SIGINT)
            out, _ = process.communicate(timeout=30)
            assert f"{expected} received" in out.splitlines()[-1]
            assert out.endswith(f"kept in {path}\n")

    def test_an_address_for_everybody_is_told(self, launch: Launch) -> None:
        """127.0.0.1 alone, as the address to send to from here, would hide it."""
        process = launch("--plain", "--port", "0", "--host", "0.0.0.0")
        assert first_line(process).startswith("Listening on http://127.0.0.1:")
        assert first_line(process).startswith("Bound to 0.0.0.0: other machines can reach it")


class TestOnATerminal:
    def test_a_view_is_drawn_and_ctrl_c_ends_it_with_a_summary(self, launch: Launch) -> None:
        leader, follower = pty.openpty()
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "30"}
        process = launch("--port", "0", stdin=follower, stdout=follower, stderr=follower, env=environment)
        os.close(follower)
        seen = ""

        def read_until(text: str) -> None:
            nonlocal seen
            while text not in seen:
                assert select.select([leader], [], [], 30)[0], seen
                try:
                    seen += os.read(leader, 65536).decode(errors="replace")
                except OSError:  # the other end is closed
                    break
            assert text in seen

        read_until("Ctrl-C ends")
        send(url_in(seen), severityNumber=17, body={"stringValue": "payment failed"})
        read_until("Recent errors")
        process.send_signal(signal.SIGINT)
        read_until("Stopped after")
        assert process.wait(timeout=30) == 0
        os.close(leader)


class TestMistakes:
    def test_a_port_in_use_says_what_to_do(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            result = CliRunner().invoke(command, ["--port", str(port)])
        assert result.exit_code == 1
        assert f"cannot listen on 127.0.0.1:{port}" in result.output
        assert "choose another port with --port" in result.output

    def test_a_host_that_does_not_exist_says_so(self) -> None:
        result = CliRunner().invoke(command, ["--port", "0", "--host", "bogus.invalid"])
        assert result.exit_code == 1
        assert "cannot listen on bogus.invalid: the host name cannot be resolved" in result.output
        assert "--port" not in result.output

    def test_a_file_that_is_no_database_says_what_to_do(self, tmp_path: Path) -> None:
        path = tmp_path / "notes.txt"
        path.write_text("not a database, but quite long enough to be one " * 50)
        result = CliRunner().invoke(command, ["--port", "0", "--db", str(path)])
        assert result.exit_code == 1
        assert "--db" in result.output

    def test_a_missing_extra_prints_its_remedy(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "uvicorn", None)
        result = CliRunner().invoke(command, ["--port", "0"])
        assert result.exit_code == 1
        assert "pip install 'otelweir[dev]'" in result.output

    @pytest.mark.parametrize("size", ["0", "lots", "-1", "1TB"])
    def test_a_size_that_is_none_shows_the_form(self, size: str) -> None:
        result = CliRunner().invoke(command, ["--port", "0", f"--max-body={size}"])
        assert result.exit_code == 2
        assert "20MiB" in result.output


class TestHelp:
    def test_has_examples(self) -> None:
        result = CliRunner().invoke(command, ["--help"])
        assert result.exit_code == 0
        assert "Examples:" in result.output
        assert "weir dev --db telemetry.sqlite3" in result.output

    def test_loads_no_server(self) -> None:
        program = """
import sys, otelweir.cli.dev
sys.exit(", ".join({"sqlite3", "google.protobuf", "starlette", "uvicorn", "rich"} & sys.modules.keys()) or 0)
"""
        subprocess.run([sys.executable, "-c", program], check=True)
