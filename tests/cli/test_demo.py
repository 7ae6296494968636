"""`weir demo` as a user meets it: in a process of its own, for real."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from otelweir.cli.demo import command

WEIR_DEMO = [sys.executable, "-m", "otelweir", "demo"]


def variables(folder: Path) -> dict[str, str]:
    """An environment of a user who has other plans with OpenTelemetry; `folder` marks every process of ours."""
    return {
        **os.environ,
        "TMPDIR": str(folder),
        "OTEL_SDK_DISABLED": "true",
        "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "http://127.0.0.1:9/v1/logs",
        "WEIR_LOG_SAMPLING": "off",
        "PATH": "",  # the launcher need not be on it
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], Path]:
    folder = tmp_path_factory.mktemp("demo")
    command = [*WEIR_DEMO, "--seconds", "2", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env=variables(folder), timeout=100, check=False)
    return done, folder


@pytest.fixture(scope="module")
def found(finished: tuple[subprocess.CompletedProcess[str], Path]) -> dict[str, Any]:
    done, _ = finished
    assert done.returncode == 0, done.stdout + done.stderr
    parsed: dict[str, Any] = json.loads(done.stdout)
    return parsed


class TestARealRun:
    def test_everything_matches(self, found: dict[str, Any]) -> None:
        assert found["ok"] is True
        assert found["differences"] == []
        assert found["errors_logged"] == found["errors_received"] > 0
        assert found["logged"] == sum(one["logged"] for one in found["severities"].values())
        for severity in found["severities"].values():
            assert severity["logged"] == severity["rolled_up"]

    def test_fewer_records_are_sent_than_were_logged(self, found: dict[str, Any]) -> None:
        assert 0 < found["sent"] < found["logged"]
        assert found["sent"] == found["records"] + found["rollups"]
        assert found["share_saved"] == pytest.approx(1 - found["sent"] / found["logged"], abs=1e-4)

    def test_the_weights_stand_for_what_was_logged(self, found: dict[str, Any]) -> None:
        allowed = found["weight_bound"] + 0.01 * found["logged"]
        assert found["weight_sum"] == pytest.approx(found["logged"], abs=allowed)

    def test_patterns_have_templates_and_counts(self, found: dict[str, Any]) -> None:
        templates = {pattern["template"]: pattern for pattern in found["patterns"]}
        assert "product <*> viewed" in templates, "a call with arguments"
        assert "cache hit for product:<*>" in templates, "an f-string"
        assert "health check passed" in templates, "a constant"
        assert '<*> - "<*> <*> HTTP/<*>" <*>' in templates, "another library's logger"
        assert sum(pattern["seen"] for pattern in found["patterns"]) == found["logged"]

    def test_there_is_a_trace_to_look_at(self, found: dict[str, Any]) -> None:
        assert len(found["trace_id"]) == 32
        assert found["spans"] > found["traces"] > 0

    def test_the_assistants_tokens_and_cost_are_what_the_provider_counted(self, found: dict[str, Any]) -> None:
        assistant = found["assistant"]
        assert assistant["ok"] is True
        assert {name: assistant[name] for name in assistant["told"]} == assistant["told"]
        assert assistant["cost"] > 0
        assert len(assistant["trace_id"]) == 32

    def test_the_assistants_error_came_with_what_was_held_and_no_count_changed(self, found: dict[str, Any]) -> None:
        assistant = found["assistant"]
        assert assistant["errors_logged"] == assistant["errors_received"] == 1
        assert assistant["logged"] == assistant["rolled_up"] > 0
        assert {record["weight"] for record in assistant["held"]} == {0}
        assert assistant["failed_trace_id"] != assistant["trace_id"]

    def test_the_secret_was_hidden_where_it_was_logged_and_where_it_was_asked(self, found: dict[str, Any]) -> None:
        places = {one["place"]: one["text"] for one in found["assistant"]["instead_of_the_secret"]}
        assert {"log record", "chat, gen_ai.input.messages"} <= places.keys()
        for text in places.values():
            assert "My login with [redacted:key] fails" in text

    def test_nothing_is_left_behind(
        self, found: dict[str, Any], finished: tuple[subprocess.CompletedProcess[str], Path]
    ) -> None:
        _, folder = finished
        assert list(folder.iterdir()) == []


class TestALoss:
    def test_is_told_and_the_evidence_stays(self, tmp_path: Path) -> None:
        """An error of each service that does not arrive: planted between the backend and the comparison."""
        program = """
import sys, dataclasses
from otelweir.cli import main
from otelweir.demo import run
arrived = run.received
run.received = lambda store: dataclasses.replace(arrived(store), error_ids=arrived(store).error_ids[1:])
run._ARRIVAL_TIMEOUT_S = 0.2
sys.argv[1:] = ["demo", "--seconds", "1", "--json"]
main()
"""
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, env=variables(tmp_path), check=False
        )
        assert done.returncode == 1, done.stderr
        found = json.loads(done.stdout)
        assert found["ok"] is False
        assert found["errors_received"] == found["errors_logged"] - 1
        shop, assistant = found["differences"]
        assert shop.startswith("1 error did not arrive: ")
        assert assistant.startswith("assistant: 1 error did not arrive: ")
        (kept,) = tmp_path.iterdir()
        assert str(kept) == found["kept_in"]
        assert {path.name for path in kept.iterdir()} == {"service.log", "output.txt", "assistant"}


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="reads /proc")
class TestInterrupted:
    @pytest.fixture
    def running(self, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
        process = subprocess.Popen(
            [*WEIR_DEMO, "--seconds", "300"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=variables(tmp_path),
        )
        yield process
        for pid in processes_of(tmp_path):
            os.kill(pid, signal.SIGKILL)
        process.communicate()

    @pytest.mark.parametrize(
        ("stage", "how", "code"),
        [
            ("A small shop starts", signal.SIGINT, 130),
            ("Customers flood it", signal.SIGINT, 130),
            ("Customers flood it", signal.SIGTERM, 143),
        ],
    )
    def test_leaves_no_process_and_no_file(
        self, running: subprocess.Popen[str], tmp_path: Path, stage: str, how: signal.Signals, code: int
    ) -> None:
        assert running.stderr
        while stage not in (line := running.stderr.readline()):
            assert line, "it ended too early"
        while len(processes_of(tmp_path)) < 2:
            time.sleep(0.01)
        running.send_signal(how)
        running.communicate(timeout=60)
        assert running.returncode == code
        assert processes_of(tmp_path) == []
        assert list(tmp_path.iterdir()) == []

    def test_a_kill_ends_the_shop_too(self, running: subprocess.Popen[str], tmp_path: Path) -> None:
        """Nobody is left to tell it: it notices that its standard input has ended."""
        assert running.stderr
        while "Customers flood it" not in (line := running.stderr.readline()):
            assert line, "it ended too early"
        assert len(processes_of(tmp_path)) == 2
        running.kill()
        deadline = time.monotonic() + 60
        while left := processes_of(tmp_path):
            assert time.monotonic() < deadline, left
            time.sleep(0.05)


def processes_of(folder: Path) -> list[int]:
    """The living processes that have this folder for temporary files."""
    mark, found = f"TMPDIR={folder}\0".encode(), []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:  # another user's, or gone
            continue
    return found


class TestMistakes:
    def test_a_port_in_use_says_what_to_do(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            done = subprocess.run([*WEIR_DEMO, "--port", str(port)], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (1, "")
        assert f"cannot listen on 127.0.0.1:{port}" in done.stderr
        assert "Traceback" not in done.stderr

    @pytest.mark.parametrize("name", ["demo", "dev"])
    def test_no_folder_for_temporary_files_says_what_to_set(self, name: str) -> None:
        program = f"""
import sys, tempfile
tempfile._candidate_tempdir_list = lambda: ["/does/not/exist"]
sys.argv[1:] = [{name!r}, "--port", "0"]
import otelweir.cli as c; c.main()
"""
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert "No usable temporary directory found in ['/does/not/exist']. Set TMPDIR" in done.stderr
        assert "Traceback" not in done.stderr

    @pytest.mark.parametrize("module", ["fastapi", "uvicorn", "opentelemetry.instrumentation.fastapi"])
    def test_a_missing_extra_prints_its_remedy(self, module: str) -> None:
        program = (
            f"import sys; sys.modules[{module!r}] = None; sys.argv[1:] = ['demo']; import otelweir.cli as c; c.main()"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert "pip install 'otelweir[demo]'" in done.stderr
        assert "Traceback" not in done.stderr

    def test_a_file_that_exists_is_not_touched(self, tmp_path: Path) -> None:
        path = tmp_path / "mine.sqlite3"
        path.write_text("mine")
        result = CliRunner().invoke(command, ["--db", str(path)])
        assert result.exit_code == 2
        assert "needs a new file" in result.output
        assert path.read_text() == "mine"

    @pytest.mark.parametrize("seconds", ["0", "-1", "601", "soon"])
    def test_seconds_are_bounded(self, seconds: str) -> None:
        assert CliRunner().invoke(command, [f"--seconds={seconds}"]).exit_code == 2


class TestHelp:
    def test_has_examples(self) -> None:
        result = CliRunner().invoke(command, ["--help"])
        assert result.exit_code == 0
        assert "Examples:" in result.output
        assert "weir demo --json" in result.output

    def test_loads_no_server(self) -> None:
        program = """
import sys, otelweir.cli.demo
sys.exit(", ".join({"sqlite3", "google.protobuf", "starlette", "uvicorn", "rich"} & sys.modules.keys()) or 0)
"""
        subprocess.run([sys.executable, "-c", program], check=True)
