"""`weir spool` as a command, on what real processes left: what it prints, what it sends, and what it ends with."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from otelweir.cli import cli
from otelweir.pipeline.spool import Group, Spool
from otelweir.pipeline.spool.inspect import aside_in, look, processes_in, records
from otelweir.testing import Answer, Backend, GrpcBackend

APPLICATION = """
    import os, signal, sys, time
    from pathlib import Path
    from types import SimpleNamespace
    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from otelweir.pipeline.spool import Spool, encode_log, encode_span

    spool = Spool(Path(sys.argv[1]), min_free_bytes=0)
    resource = Resource.create({"service.name": "shop"})
    logs = LoggerProvider(resource=resource, shutdown_on_exit=False)
    logs.add_log_record_processor(SimpleNamespace(on_emit=lambda record: spool.append("logs", encode_log(record))))
    spans = TracerProvider(resource=resource, shutdown_on_exit=False)
    spans.add_span_processor(SimpleNamespace(
        on_start=lambda *_, **__: None, _on_ending=lambda _: None,
        on_end=lambda span: spool.append("traces", encode_span(span)),
    ))
    logger, tracer = logs.get_logger("shop.cart"), spans.get_tracer("shop.web")
    for number in range(int(sys.argv[3])):
        with tracer.start_as_current_span(f"GET /orders/{number}"):
            logger.emit(body=f"order {number}", severity_number=None, severity_text="INFO", attributes={"n": number})
    exec(sys.argv[2])
"""
KILLED = "os.kill(os.getpid(), signal.SIGKILL)"
LIVES = "print('up', flush=True); time.sleep(120)"
KILLS_ITSELF_WITH_ESCAPES = """
logger.emit(body="\\x1b[2Jgone\\r\\n\\u202eevil\\x07", attributes={"\\x1b]0;title\\x07": "\\x9b31m"})
os.kill(os.getpid(), signal.SIGKILL)
"""


def application(folder: Path, end: str = KILLED, count: int = 10) -> None:
    """A process that kept spans and log records, and sent none."""
    program = [sys.executable, "-c", textwrap.dedent(APPLICATION), str(folder), end, str(count)]
    subprocess.run(program, timeout=60, stderr=subprocess.DEVNULL)


@contextmanager
def living(folder: Path, count: int = 10) -> Iterator[subprocess.Popen[str]]:
    program = [sys.executable, "-c", textwrap.dedent(APPLICATION), str(folder), LIVES, str(count)]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        try:
            yield process
        finally:
            process.kill()


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "WEIR_", "XDG_"))}
    return {**kept, **more}


def weir(*arguments: object, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "otelweir", "spool", *map(str, arguments)],
        env=environment(**environ),
        capture_output=True,
        text=True,
        timeout=60,
    )


def start(*arguments: object, **environ: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "otelweir", "spool", *map(str, arguments)],
        env=environment(**environ),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def waiting(folder: Path) -> int:
    return sum(found.waiting for process in look(folder).processes for found in process.files)


def until(predicate: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not predicate():
        assert time.monotonic() < end
        time.sleep(0.02)


def damage(folder: Path) -> None:
    """Flip a bit in the last record of every file."""
    for process in look(folder).processes:
        for found in process.files:
            data = bytearray(found.path.read_bytes())
            data[len(data.rstrip(b"\0")) - 1] ^= 1
            found.path.write_bytes(data)


@pytest.fixture
def backend() -> Iterator[Backend]:
    with Backend() as backend:
        yield backend


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """The spool of a service whose process was killed."""
    application(tmp_path / "shop")
    return tmp_path / "shop"


class TestWhere:
    def test_a_folder_of_services_holds_them_all(self, shop: Path, tmp_path: Path) -> None:
        application(tmp_path / "cart", count=3)
        told = json.loads(weir("status", tmp_path, "--json").stdout)
        assert [Path(service["folder"]).name for service in told["services"]] == ["cart", "shop"]

    def test_the_variable_names_it_when_nothing_else_does(self, shop: Path) -> None:
        assert str(shop) in weir("status", WEIR_SPOOL_DIR=str(shop)).stdout

    def test_the_default_is_the_state_folder(self, tmp_path: Path) -> None:
        application(tmp_path / "otelweir" / "shop")
        assert str(tmp_path / "otelweir" / "shop") in weir("status", XDG_STATE_HOME=str(tmp_path)).stdout

    @pytest.mark.parametrize("name", ["status", "verify", "cat", "drain"])
    def test_nothing_there_yet_is_fine(self, name: str, tmp_path: Path) -> None:
        """A sidecar or a cron job may be there before the service."""
        done = weir(name, XDG_STATE_HOME=str(tmp_path))
        assert (done.returncode, done.stderr) == (0, "")
        if name != "cat":
            assert done.stdout == f"No spool in {tmp_path}/otelweir: no service has kept anything there yet.\n"

    @pytest.mark.parametrize("name", ["status", "verify", "cat", "drain"])
    def test_a_folder_that_is_none_is_wrong_usage(self, name: str, tmp_path: Path) -> None:
        done = weir(name, tmp_path / "typo")
        assert done.returncode == 2
        assert "typo does not exist" in done.stderr
        (tmp_path / "file").touch()
        assert weir(name, tmp_path / "file").returncode == 2

    @pytest.mark.parametrize("name", ["status", "verify", "cat", "drain"])
    def test_an_empty_folder_is_fine(self, name: str, tmp_path: Path) -> None:
        assert weir(name, tmp_path).returncode == 0

    @pytest.mark.parametrize("name", ["status", "verify", "cat", "drain"])
    def test_a_folder_that_cannot_be_read_is_told(self, name: str, shop: Path) -> None:
        CliRunner().invoke(cli, ["spool", name, "--help"])  # imported, before other users cannot
        with nobody(shop):
            done = CliRunner().invoke(cli, ["spool", name, str(shop)])
        assert done.exit_code == 1
        assert "cannot be read: Permission denied. Run this as the user that the service runs as." in done.output


@contextmanager
def nobody(folder: Path) -> Iterator[None]:
    """Be somebody who may not read a folder."""
    user = os.geteuid()
    folder.chmod(0)
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)
        folder.chmod(0o700)


class TestStatus:
    def test_shows_what_waits_by_process_and_signal(self, shop: Path) -> None:
        (process,) = look(shop).processes
        rows = [line.split() for line in weir("status", shop).stdout.splitlines()]
        assert rows[1] == ["process", "state", "signal", "waiting", "bytes", "oldest"]
        assert rows[2][:4] == [str(process.pid), "orphan", "traces", "10"]
        assert rows[3][:2] == ["logs", "10"]

    def test_a_running_process_is_told_from_a_dead_one_and_not_disturbed(self, shop: Path) -> None:
        with living(shop, 5) as process:
            before = {path: path.stat().st_mtime_ns for path in shop.rglob("*") if path.is_file()}
            told = json.loads(weir("status", shop, "--json").stdout)["services"][0]["processes"]
            assert {one["state"]: one["lanes"]["logs"]["waiting"] for one in told} == {"orphan": 10, "running": 5}
            assert {one["pid"] for one in told if one["state"] == "running"} == {process.pid}
            assert before == {path: path.stat().st_mtime_ns for path in shop.rglob("*") if path.is_file()}

    def test_shows_what_a_running_process_says(self, tmp_path: Path) -> None:
        spool = Spool(tmp_path, min_free_bytes=0)
        spool.append("logs", (Group(b"", b""), b""))
        lane = {
            "delivered": 1234,
            "lost": {"rejected": 3},
            "waiting": 1,
            "endpoint": "http://collector:4318",
            "breaker": "open",
            "failing": "Connection refused",
            "target_bytes": 2**19,
            "mean_s": 0.03,
            "wait_s": 9.0,
        }
        spool.publish({"weir_status": 1, "service": "shop", "max_bytes": 2**30, "lanes": {"logs": lane}})
        shown = weir("status", tmp_path).stdout
        assert "of 1.0 GiB (0 %) on disk" in shown
        row = next(line.split(maxsplit=2) for line in shown.splitlines() if " 1,234 " in line)
        assert row[:2] == [str(os.getpid()), "logs"]
        told = ["1,234", "3 rejected", "open, for 9 s", "512 KiB", "30 ms", "http://collector:4318: Connection refused"]
        assert re.split(r"  +", row[2].strip()) == told
        (service,) = json.loads(weir("status", tmp_path, "--json").stdout)["services"]
        assert service["quota_bytes"] == 2**30
        assert service["processes"][0]["status"]["lanes"]["logs"]["delivered"] == 1234
        spool.close()

    def test_shows_what_was_set_aside_and_what_is_damaged(self, shop: Path, backend: Backend) -> None:
        backend.default_answer = Answer(400, {"Content-Type": "text/plain"}, b"no such tenant")
        weir("drain", shop, "--endpoint", backend.endpoint)
        application(shop)
        damage(shop)
        shown = weir("status", shop).stdout
        assert "set aside: 10 records (logs): " in shown
        assert "no such tenant" in shown
        assert "one damaged stretch" in shown

    def test_shows_the_quota_where_it_is_known(self, shop: Path) -> None:
        assert "of 64.0 MiB (" in weir("status", shop, WEIR_SPOOL_MAX_BYTES="64MiB").stdout

    @pytest.mark.parametrize("more", [(), ("--json",)])
    def test_watches_until_ctrl_c(self, shop: Path, more: tuple[str, ...]) -> None:
        with start("status", shop, "--watch", *more) as process:
            assert process.stdout is not None
            for _ in range(2):
                while "logs" not in process.stdout.readline():
                    pass
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 0

    def test_watches_on_a_terminal(self, shop: Path) -> None:
        code, shown = in_terminal("status", shop, "--watch", keys=b"\x03", after="orphan")
        assert code == 0
        assert "Traceback" not in shown


class TestVerify:
    def test_is_0_when_all_is_whole(self, shop: Path) -> None:
        done = weir("verify", shop)
        assert (done.returncode, done.stdout) == (0, "Whole files: 2 of 2, with 20 records.\n")
        assert json.loads(weir("verify", shop, "--json").stdout)["ok"] is True

    def test_is_0_for_a_running_process_that_writes(self, tmp_path: Path) -> None:
        """What one reading finds half written, the next finds whole."""
        writes = "print('up', flush=True)\nwhile True: logger.emit(body='x' * 300)"
        program = [sys.executable, "-c", textwrap.dedent(APPLICATION), str(tmp_path), writes, "1"]
        with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            process.stdout.readline()
            for _ in range(3):
                done = weir("verify", tmp_path)
                assert (done.returncode, done.stderr) == (0, ""), done.stdout
            process.kill()

    def test_is_1_when_something_is_damaged_and_says_where(self, shop: Path) -> None:
        damage(shop)
        done = weir("verify", shop)
        assert done.returncode == 1
        assert done.stdout.count("one damaged stretch") == 2
        assert "Whole files: 0 of 2, with 18 records." in done.stdout
        told = json.loads(weir("verify", shop, "--json").stdout)
        assert (told["ok"], [len(file["damaged"]) for file in told["files"]]) == (False, [1, 1])

    def test_a_torn_tail_is_no_damage(self, shop: Path) -> None:
        path = next(found.path for found in look(shop).processes[0].files)
        *_, last = records(path)
        path.write_bytes(path.read_bytes()[: last.at + last.size] + bytes(4) + b"torn")
        done = weir("verify", shop)
        assert done.returncode == 0
        assert "torn tail" in done.stdout

    def test_any_bytes_do(self, shop: Path) -> None:
        for found in look(shop).processes[0].files:
            found.path.write_bytes(os.urandom(10_000))
        done = weir("verify", shop)
        assert (done.returncode, done.stderr) == (1, "")


class TestCat:
    def test_prints_a_line_for_each_record(self, shop: Path) -> None:
        lines = weir("cat", shop, "--lane", "logs").stdout.splitlines()
        assert len(lines) == 10
        assert "logs  shop/shop.cart  INFO  order 0  n=0  trace=" in lines[0]
        assert "traces  shop/shop.web  GET /orders/9  " in weir("cat", shop).stdout

    def test_json_holds_the_record_as_otlp(self, shop: Path) -> None:
        told = [json.loads(line) for line in weir("cat", shop, "--json").stdout.splitlines()]
        (process,) = processes_in(shop)
        assert len({one["id"] for one in told}) == 20
        assert {(one["process"], one["lane"]) for one in told} == {(process.name, "logs"), (process.name, "traces")}
        first = next(one for one in told if one["lane"] == "traces")
        span = first["otlp"]["resourceSpans"][0]["scopeSpans"][0]["spans"][0]
        assert span["name"] == "GET /orders/0"
        assert len(bytes.fromhex(span["traceId"])) == 16

    def test_nothing_in_a_record_reaches_the_terminal_as_a_command(self, tmp_path: Path) -> None:
        application(tmp_path, KILLS_ITSELF_WITH_ESCAPES, 0)
        for arguments in ((), ("--json",)):
            shown = weir("cat", tmp_path, *arguments).stdout
            assert all(letter.isprintable() for letter in shown.removesuffix("\n"))
        assert "\\x1b[2Jgone\\r\\n\\u202eevil\\x07" in weir("cat", tmp_path).stdout

    def test_bytes_that_are_no_message_are_told(self, tmp_path: Path) -> None:
        spool = Spool(tmp_path, min_free_bytes=0)
        spool.append("logs", (Group(b"\xff", b"\xff"), b"\xff\xff"))
        assert weir("cat", tmp_path).stdout == "logs  2 bytes, not readable\n"
        assert json.loads(weir("cat", tmp_path, "--json").stdout)["raw"] == "//8="
        spool.close()

    def test_shows_what_was_set_aside_with_the_reason(self, shop: Path, backend: Backend) -> None:
        backend.default_answer = Answer(400, {"Content-Type": "text/plain"}, b"no such tenant")
        weir("drain", shop, "--endpoint", backend.endpoint)
        assert weir("cat", shop).stdout == ""
        shown = weir("cat", shop, "--aside").stdout
        assert shown.count("    set aside: ") == 20
        assert "no such tenant" in shown
        told = [
            json.loads(line) for line in weir("cat", shop, "--aside", "--json", "--lane", "logs").stdout.splitlines()
        ]
        assert (len(told), "no such tenant" in told[0]["reason"]) == (10, True)

    def test_a_pipe_that_closes_early_is_no_error(self, tmp_path: Path) -> None:
        application(tmp_path, count=3000)
        with start("cat", tmp_path) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.readline()
            process.stdout.close()
            assert process.wait(30) == 1
            assert process.stderr.read() == ""

    def test_damage_costs_only_what_it_hit(self, shop: Path) -> None:
        damage(shop)
        assert len(weir("cat", shop).stdout.splitlines()) == 18


class TestDrain:
    def test_delivers_what_dead_processes_left(self, shop: Path, backend: Backend) -> None:
        application(shop)
        done = weir("drain", shop, OTEL_EXPORTER_OTLP_ENDPOINT=backend.endpoint)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == f"{shop}: 40 records (traces 20, logs 20) delivered.\n"
        assert sorted(log.body for log in backend.logs) == sorted(2 * [f"order {number}" for number in range(10)])
        assert len(backend.spans) == 20
        assert (waiting(shop), processes_in(shop)) == (0, {})
        again = weir("drain", shop, OTEL_EXPORTER_OTLP_ENDPOINT=backend.endpoint)
        assert (again.returncode, again.stdout) == (0, f"{shop}: nothing was left to send.\n")

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_sends_over_grpc_and_can_be_interrupted_there(self, number: signal.Signals, shop: Path) -> None:
        environ = {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
        with socket.create_server(("127.0.0.1", 0)) as hangs:
            endpoint = f"http://127.0.0.1:{hangs.getsockname()[1]}"
            with start("drain", shop, OTEL_EXPORTER_OTLP_ENDPOINT=endpoint, **environ) as process:
                connection, _ = hangs.accept()
                connection.recv(1)
                process.send_signal(number)
                output, _ = process.communicate(timeout=30)
                connection.close()
        assert (process.returncode, waiting(shop)) == (128 + number, 20)
        assert "20 records (traces 10, logs 10) still wait" in output
        with GrpcBackend() as backend:
            done = weir("drain", shop, OTEL_EXPORTER_OTLP_ENDPOINT=backend.endpoint, **environ)
            assert (done.returncode, done.stderr) == (0, "")
            assert (len(backend.logs), len(backend.spans)) == (10, 10)

    def test_drains_all_services_of_a_folder(self, shop: Path, tmp_path: Path, backend: Backend) -> None:
        application(tmp_path / "cart")
        told = json.loads(weir("drain", tmp_path, "--json", "--endpoint", backend.endpoint).stdout)
        assert told["ok"] is True
        assert [service["delivered"] for service in told["services"]] == [{"traces": 10, "logs": 10}] * 2

    def test_does_not_touch_what_a_running_process_has(self, shop: Path, backend: Backend) -> None:
        with living(shop, 7) as process:
            done = weir("drain", shop, "--endpoint", backend.endpoint)
            assert done.returncode == 0
            assert "1 running process there: they send their own." in done.stdout
            assert len(backend.logs) == 10
            (left,) = look(shop).processes
            assert (left.pid, left.state, waiting(shop)) == (process.pid, "running", 14)

    def test_is_1_when_nobody_listens_and_leaves_everything(self, shop: Path, backend: Backend) -> None:
        backend.stop()
        done = weir("drain", shop, "--endpoint", backend.endpoint, "--timeout", "0.5")
        assert done.returncode == 1
        assert "20 records (traces 10, logs 10) still wait" in done.stdout
        assert "Connection refused" in done.stdout
        assert "run this again when the endpoint answers" in done.stdout
        assert waiting(shop) == 20
        backend.start()
        assert weir("drain", shop, "--endpoint", backend.endpoint).returncode == 0
        assert len(backend.logs) == 10

    def test_does_not_wait_longer_than_it_may(self, shop: Path, backend: Backend) -> None:
        """An endpoint that says to come back in an hour is obeyed, and not waited for."""
        backend.default_answer = Answer(429, {"Retry-After": "3600"})
        done = weir("drain", shop, "--endpoint", backend.endpoint)
        assert done.returncode == 1
        assert len(backend.requests) == 1
        assert waiting(shop) == 20

    def test_goes_on_after_a_short_refusal(self, shop: Path, backend: Backend) -> None:
        backend.answers += [Answer(429, {"Retry-After": "1"}), Answer(503)]
        assert weir("drain", shop, "--endpoint", backend.endpoint).returncode == 0
        assert (len(backend.logs), len(backend.spans)) == (10, 10)

    def test_is_1_when_records_are_refused_and_says_how_to_see_them(self, shop: Path, backend: Backend) -> None:
        backend.default_answer = Answer(400, {"Content-Type": "text/plain"}, b"no such tenant")
        done = weir("drain", shop, "--endpoint", backend.endpoint)
        assert done.returncode == 1
        assert "20 records (traces 10, logs 10) refused and set aside" in done.stdout
        assert f"`weir spool cat {shop} --aside`" in done.stdout
        assert waiting(shop) == 0

    def test_sends_again_what_was_set_aside(self, shop: Path, backend: Backend) -> None:
        backend.default_answer = Answer(400)
        weir("drain", shop, "--endpoint", backend.endpoint)
        assert weir("drain", shop, "--endpoint", backend.endpoint).returncode == 0
        backend.default_answer = Answer(200)
        backend.clear()
        done = weir("drain", shop, "--aside", "--endpoint", backend.endpoint)
        assert (done.returncode, done.stdout) == (0, f"{shop}: 20 records (traces 10, logs 10) delivered.\n")
        assert sorted(log.body for log in backend.logs) == [f"order {number}" for number in range(10)]
        assert aside_in(shop) == []
        assert weir("cat", shop, "--aside").stdout == ""

    def test_what_there_is_no_room_for_stays_aside(self, tmp_path: Path, backend: Backend) -> None:
        """What is sent again must not drive out what waits."""
        spool = Spool(tmp_path, min_free_bytes=0)
        for _ in range(1500):
            spool.append("logs", (Group(b"", b""), b"\x12\xea\x07\x2a\xe7\x07\x0a\xe4\x07" + b"x" * 996))
        spool.set_aside(spool.take("logs", 2**24, 10**4), "odd")
        spool.close()
        done = weir("drain", tmp_path, "--aside", "--endpoint", backend.endpoint, WEIR_SPOOL_MAX_BYTES="1MiB")
        assert done.returncode == 1
        assert "1,500 records still set aside: there is no room to take them back" in done.stdout
        done = weir("drain", tmp_path, "--aside", "--endpoint", backend.endpoint, WEIR_SPOOL_MAX_BYTES="2MiB")
        assert (done.returncode, len(backend.logs)) == (0, 1500)
        assert aside_in(tmp_path) == []

    def test_what_is_refused_again_is_set_aside_again(self, shop: Path, backend: Backend) -> None:
        backend.default_answer = Answer(400)
        weir("drain", shop, "--endpoint", backend.endpoint)
        done = weir("drain", shop, "--aside", "--endpoint", backend.endpoint)
        assert done.returncode == 1
        assert len(weir("cat", shop, "--aside").stdout.splitlines()) == 40

    def test_what_a_running_process_set_aside_is_sent_and_its_file_left(self, tmp_path: Path, backend: Backend) -> None:
        refuses = "spool.set_aside(spool.take('logs', 10**6, 4), 'odd')"
        program = [sys.executable, "-c", textwrap.dedent(APPLICATION), str(tmp_path), f"{refuses}; {LIVES}", "10"]
        with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            process.stdout.readline()
            for expected in (4, 4):
                assert weir("drain", tmp_path, "--aside", "--endpoint", backend.endpoint).returncode == 0
                assert len(backend.logs) == expected
            assert len(aside_in(tmp_path)) == 1
            process.kill()

    def test_is_1_for_damage_and_delivers_the_rest(self, shop: Path, backend: Backend) -> None:
        damage(shop)
        done = weir("drain", shop, "--endpoint", backend.endpoint)
        assert done.returncode == 1
        assert "2 records lost: corrupt 2" in done.stdout
        assert (len(backend.logs), len(backend.spans)) == (9, 9)

    def test_is_1_for_the_folder_of_somebody_else_and_says_what_to_do(
        self, shop: Path, backend: Backend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: shop.stat().st_uid + 1)
        done = CliRunner().invoke(cli, ["spool", "drain", str(shop), "--endpoint", backend.endpoint])
        assert done.exit_code == 1
        assert "could not be taken over. Run this as the user that the service runs as" in done.output
        assert waiting(shop) == 20

    @pytest.mark.parametrize("endpoint", ["collector", "ftp://collector", "http://", "http://collector:99999"])
    def test_a_wrong_endpoint_is_wrong_usage(self, endpoint: str, shop: Path) -> None:
        """Nothing goes to the default one instead."""
        done = CliRunner().invoke(cli, ["spool", "drain", str(shop), "--endpoint", endpoint])
        assert done.exit_code == 2
        assert "is not a URL such as http://localhost:4318" in done.output

    def test_the_folder_of_a_process_can_be_looked_at_and_not_drained(self, shop: Path) -> None:
        (folder,) = processes_in(shop)
        for name, code in {"status": 0, "verify": 0, "cat": 0, "drain": 2}.items():
            assert CliRunner().invoke(cli, ["spool", name, str(folder)]).exit_code == code

    def test_no_key_is_printed(self, shop: Path, backend: Backend) -> None:
        backend.default_answer = Answer(401)
        done = weir(
            "drain", shop, "--timeout", 0, "--json",
            OTEL_EXPORTER_OTLP_ENDPOINT=backend.endpoint, OTEL_EXPORTER_OTLP_HEADERS="api-key=hush",
        )  # fmt: skip
        assert done.returncode == 1
        assert backend.requests[0].headers["api-key"] == "hush"
        assert "hush" not in done.stdout + done.stderr
        assert json.loads(done.stdout)["services"][0]["waiting"] == {"traces": 10, "logs": 10}

    def test_ctrl_c_leaves_everything_and_is_130(self, shop: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as hangs:
            endpoint = f"http://127.0.0.1:{hangs.getsockname()[1]}"
            with start("drain", shop, "--endpoint", endpoint) as process:
                connection, _ = hangs.accept()
                connection.recv(1)
                process.send_signal(signal.SIGINT)
                output, errors = process.communicate(timeout=30)
                connection.close()
        assert process.returncode == 130
        assert "20 records (traces 10, logs 10) still wait" in output
        assert errors == ""
        assert waiting(shop) == 20
        assert list(processes_in(shop).values()) == ["orphan"]

    def test_a_kill_leaves_everything(self, shop: Path, backend: Backend) -> None:
        with socket.create_server(("127.0.0.1", 0)) as hangs:
            with start("drain", shop, "--endpoint", f"http://127.0.0.1:{hangs.getsockname()[1]}") as process:
                connection, _ = hangs.accept()
                process.kill()
                connection.close()
        assert weir("drain", shop, "--endpoint", backend.endpoint).returncode == 0
        assert sorted(log.body for log in backend.logs) == [f"order {number}" for number in range(10)]

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_follows_until_told_to_end(self, number: signal.Signals, tmp_path: Path, backend: Backend) -> None:
        """As a sidecar it ends with 0: that it was told to is no failure."""
        folder = tmp_path / "otelweir"
        with start(
            "drain", "--follow", OTEL_EXPORTER_OTLP_ENDPOINT=backend.endpoint, XDG_STATE_HOME=str(tmp_path)
        ) as process:
            application(folder / "cart")
            until(lambda: len(backend.logs) == 10)
            application(folder / "shop")
            # Not only arrived, but answered: Ctrl-C does not wait for an answer.
            until(lambda: len(backend.logs) == 20 and len(backend.spans) == 20 and not waiting(folder / "shop"))
            process.send_signal(number)
            output, _ = process.communicate(timeout=30)
        assert process.returncode == 0
        assert output.count("20 records (traces 10, logs 10) delivered.") == 2
        assert processes_in(folder / "cart") == {}

    @pytest.mark.parametrize("there", [True, False], ids=["empty", "missing"])
    def test_follows_a_folder_before_the_first_service(self, there: bool, tmp_path: Path, backend: Backend) -> None:
        """As a sidecar it is started first, on a new volume, and what comes may be several services."""
        volume = tmp_path / "volume"
        if there:
            volume.mkdir()
        with start("drain", volume, "--follow", "--endpoint", backend.endpoint) as process:
            assert process.stderr is not None
            assert process.stderr.readline().startswith("Sending what ended processes left")
            application(volume / "cart")
            until(lambda: len(backend.logs) == 10)
            application(volume / "shop")
            until(lambda: len(backend.logs) == 20)
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=30)
        assert process.returncode == 0
        assert sorted(path.name for path in volume.iterdir()) == ["cart", "shop"]

    def test_told_to_end_it_looks_once_more(self, tmp_path: Path, backend: Backend) -> None:
        """As a sidecar it is told to end as soon as the service has ended, which may have left something."""
        folder = tmp_path / "shop"
        with start("drain", folder, "--follow", "--endpoint", backend.endpoint) as process:
            application(folder)
            until(lambda: len(backend.logs) == 10 and len(backend.spans) == 10)
            process.send_signal(signal.SIGSTOP)
            application(folder)
            process.send_signal(signal.SIGTERM)
            process.send_signal(signal.SIGCONT)
            output, errors = process.communicate(timeout=30)
        assert process.returncode == 0, errors
        assert "40 records (traces 20, logs 20) delivered." in output
        assert len(backend.logs) == len(backend.spans) == 20

    def test_told_to_end_in_an_outage_it_keeps_to_its_time(self, tmp_path: Path) -> None:
        with socket.socket() as nobody:
            nobody.bind(("127.0.0.1", 0))
            where = f"http://127.0.0.1:{nobody.getsockname()[1]}"
            folder = tmp_path / "shop"
            application(folder)
            with start("drain", folder, "--follow", "--timeout", "1", "--endpoint", where) as process:
                until(lambda: "orphan" not in processes_in(folder).values())
                process.send_signal(signal.SIGTERM)
                output, errors = process.communicate(timeout=30)
        assert process.returncode == 0, errors
        assert "20 records (traces 10, logs 10) still wait" in output
        assert waiting(folder) == 20

    def test_shows_progress_on_a_terminal(self, shop: Path, backend: Backend) -> None:
        code, shown = in_terminal("drain", shop, "--endpoint", backend.endpoint)
        assert code == 0
        assert "/20 records" in shown
        assert "20 records (traces 10, logs 10) delivered." in shown.replace("\r\n", "")


def in_terminal(*arguments: object, keys: bytes = b"", after: str = "") -> tuple[int, str]:
    """Run it on a terminal, press keys when something appears; exit code and what was shown."""
    command: list[Any] = [sys.executable, "-m", "otelweir", "spool", *map(str, arguments)]
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(sys.executable, command, environment(TERM="xterm", COLUMNS="300", LINES="40"))
    shown = b""
    while True:
        try:
            read = os.read(terminal, 65536)
        except OSError:  # how a terminal ends
            break
        if not read:
            break
        shown += read
        if keys and after.encode() in shown:
            os.write(terminal, keys)
            keys = b""
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    return os.waitstatus_to_exitcode(status), shown.decode()
