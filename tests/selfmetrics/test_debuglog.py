"""The debug log: whole lines, bounded, private, without secrets, and never in the way."""

from __future__ import annotations

import json
import logging
import os
import signal
import stat
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelweir.errors import BAD_VALUE, Problem, warn
from otelweir.pipeline.transmit import Delivered, Rejected, RetryAfter
from otelweir.pipeline.transmit.courier import Sent
from otelweir.selfmetrics import DebugLog
from otelweir.selfmetrics.debuglog import without_secrets
from otelweir.testing import Clock

SOMETIME = 1769860800.25


def lines(*paths: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for path in paths for line in path.read_text().splitlines()]


class Warnings(list[tuple[Problem, str]]):
    def __call__(self, problem: Problem, detail: str) -> None:
        self.append((problem, detail))


values = st.recursive(
    st.none() | st.floats() | st.integers() | st.binary(max_size=9) | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=5,
)


class TestLines:
    def test_a_request_has_one(self, tmp_path: Path) -> None:
        log = DebugLog(str(tmp_path / "debug"), clock=Clock(SOMETIME))
        log.request(Sent("logs", 10, 1000, 200, 0.0251234567, Delivered(2, "two are too old")))
        log.request(Sent("traces", 1, 10, 10, 5.0, RetryAfter(30.0, "HTTP 429: slow down")))
        common = {"time": "2026-01-31T12:00:00.250000Z", "pid": os.getpid(), "event": "request"}
        assert lines(tmp_path / "debug") == [
            common
            | {"lane": "logs", "records": 10, "bytes": 1000, "wire_bytes": 200, "took_s": 0.025123}
            | {"outcome": "delivered", "rejected": 2, "server": "two are too old"},
            common
            | {"lane": "traces", "records": 1, "bytes": 10, "wire_bytes": 10, "took_s": 5.0}
            | {"outcome": "retry_after", "after_s": 30.0, "server": "HTTP 429: slow down"},
        ]

    def test_an_event_has_one_with_what_is_told(self, tmp_path: Path) -> None:
        log = DebugLog(str(tmp_path / "debug"), clock=Clock(SOMETIME))
        log.event("adopted", lane="logs", records=3, why=None, paths=[Path("/a"), {"b": float("nan")}])
        [line] = lines(tmp_path / "debug")
        assert line["event"] == "adopted"
        assert {key: line[key] for key in line if key not in ("time", "pid", "event")} == {
            "lane": "logs",
            "records": 3,
            "paths": ["/a", {"b": "nan"}],
        }

    def test_a_warning_has_one_however_many_write_there(self, tmp_path: Path) -> None:
        logs = [DebugLog(str(tmp_path / "debug")), DebugLog(str(tmp_path / "debug")), DebugLog(None)]
        for _ in range(2):
            warn(BAD_VALUE, "X=1 is not a word")
        [line] = lines(tmp_path / "debug")
        assert (line["event"], line["code"], line["detail"]) == ("warning", "WEIR-CONFIG-001", "X=1 is not a word")
        assert len(logs) == 3

    def test_a_line_is_of_bounded_length(self, tmp_path: Path) -> None:
        log = DebugLog(str(tmp_path / "debug"))
        log.event("warning", text="x" * 10**6, many=[list(range(10**4))] * 100)
        assert (tmp_path / "debug").stat().st_size < 50_000

    @given(st.dictionaries(st.text(max_size=9), values, max_size=4))
    def test_whatever_is_told_is_a_line_of_json(
        self, tmp_path_factory: pytest.TempPathFactory, fields: dict[str, Any]
    ) -> None:
        path = tmp_path_factory.getbasetemp() / "debug"
        path.unlink(missing_ok=True)
        DebugLog(str(path)).event("any", **fields)
        [line] = lines(path)
        assert line["event"] == "any"

    def test_what_shows_itself_badly_disturbs_nobody(self, tmp_path: Path) -> None:
        class Bad:
            def __str__(self) -> str:
                raise RuntimeError

        log = DebugLog(str(tmp_path / "debug"))
        log.event("bad", value=Bad())
        log.request(object())  # type: ignore[arg-type]
        log.event("good")
        assert [line["event"] for line in lines(tmp_path / "debug")] == ["good"]

    def test_off_writes_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        log = DebugLog(None)
        log.event("x")
        assert not log.on
        assert list(tmp_path.iterdir()) == []
        assert repr(log) == "<DebugLog off>"


class TestSecrets:
    @pytest.mark.parametrize(
        "text",
        [
            "Authorization: Bearer SECRET",
            "authorization=Basic SECRET, and so on",
            '{"token": "SECRET"}',
            "the x-api-key='SECRET' is not known",
            "no such key: Bearer SECRET",
            "https://me:SECRET@collector:4318/v1/logs",
            "https://collector/v1/logs?key=SECRET",
            "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJTRUNSRVQi.SECRET expired",
        ],
    )
    def test_what_looks_like_one_is_not_written(self, text: str, tmp_path: Path) -> None:
        log = DebugLog(str(tmp_path / "debug"))
        log.event("warning", text=text, inner={"list": [text]})
        log.request(Sent("logs", 1, 1, 1, 1.0, Rejected(text)))
        assert "SECRET" not in (tmp_path / "debug").read_text()
        assert len(lines(tmp_path / "debug")) == 2

    def test_fields_named_so_are_not_written(self, tmp_path: Path) -> None:
        DebugLog(str(tmp_path / "debug")).event("x", api_key="SECRET", headers={"Authorization": ["SECRET"]})
        assert "SECRET" not in (tmp_path / "debug").read_text()

    def test_known_ones_are_found_wherever_they_are(self, tmp_path: Path) -> None:
        """A server may say any key that it was sent, and not the scheme it came with."""
        log = DebugLog(str(tmp_path / "debug"), hide=lambda: ["Bearer opensesame", "abc", ""])
        log.request(Sent("logs", 1, 1, 1, 1.0, Rejected("HTTP 400: opensesame is no abc")))
        [line] = lines(tmp_path / "debug")
        assert line["server"] == "HTTP 400: *** is no abc"

    @pytest.mark.parametrize("text", ["no answer in time", "HTTP 400: token bucket is full", "line 3: bad key"])
    def test_other_words_stay(self, text: str) -> None:
        assert without_secrets(text) == text


class TestFile:
    def test_only_its_owner_reads_it(self, tmp_path: Path) -> None:
        (tmp_path / "debug").touch(0o644)
        DebugLog(str(tmp_path / "debug")).event("x")
        assert stat.S_IMODE((tmp_path / "debug").stat().st_mode) == 0o600

    def test_it_is_bounded_and_keeps_the_one_before(self, tmp_path: Path) -> None:
        log = DebugLog(str(tmp_path / "debug"), max_bytes=2000)
        for number in range(100):
            log.event("x", number=number)
            assert (tmp_path / "debug").stat().st_size <= 2000
        assert sorted(path.name for path in tmp_path.iterdir()) == ["debug", "debug.1"]
        numbers = [line["number"] for line in lines(tmp_path / "debug.1", tmp_path / "debug")]
        assert numbers == list(range(100))[-len(numbers) :]
        assert 10 < len(numbers) < 100

    def test_one_that_is_deleted_is_made_again(self, tmp_path: Path) -> None:
        log = DebugLog(str(tmp_path / "debug"))
        log.event("before")
        (tmp_path / "debug").unlink()
        log.event("after")
        log.close()
        log.event("more")
        assert [line["event"] for line in lines(tmp_path / "debug")] == ["after", "more"]

    def test_what_is_no_file_of_ours_is_refused_and_said(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        (tmp_path / "link").symlink_to(tmp_path / "target")
        for path in (tmp_path, tmp_path / "pipe", tmp_path / "link", tmp_path / "missing" / "debug"):
            warnings = Warnings()
            log = DebugLog(str(path), warn=warnings)
            log.event("x")
            assert [problem for problem, _ in warnings] == [BAD_VALUE]
            assert warnings[0][1].startswith(f"WEIR_DEBUG_LOG='{path}' cannot be written: ")
        assert not (tmp_path / "target").exists()

    def test_a_home_that_nobody_has_is_a_name_like_any_other(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        warnings = Warnings()
        DebugLog("~nobody-at-all/debug", warn=warnings).event("x")
        assert len(warnings) == 1

    def test_standard_error_is_one_too(self, capfd: pytest.CaptureFixture[str]) -> None:
        log = DebugLog("stderr")
        log.event("x", number=1)
        assert json.loads(capfd.readouterr().err)["number"] == 1
        assert repr(log) == "<DebugLog stderr>"

    def test_nothing_goes_through_logging(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG)
        DebugLog(str(tmp_path / "debug")).event("x")
        assert caplog.records == []


class TestCompany:
    def test_threads_write_whole_lines(self, tmp_path: Path) -> None:
        log = DebugLog(str(tmp_path / "debug"))

        def write(thread: int) -> None:
            for number in range(200):
                log.event("x", thread=thread, number=number)

        threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(lines(tmp_path / "debug")) == 800

    def test_a_signal_handler_writes_in_the_middle_of_another_line(self, tmp_path: Path) -> None:
        log, handled = DebugLog(str(tmp_path / "debug"), max_bytes=2**30), 0

        def handler(*_: object) -> None:
            nonlocal handled
            handled += 1
            log.event("signal", number=handled)

        before = signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        written = 0
        try:
            while handled < 50:
                log.event("x")
                written += 1
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        log.event("last")
        events = [line["event"] for line in lines(tmp_path / "debug")]
        assert (events.count("signal"), events.count("x")) == (handled, written)

    def test_processes_share_a_file_and_its_bound(self, tmp_path: Path) -> None:
        """Forked ones, too. Each of them finds the file full; only one may put it away."""
        program = """
            import os, sys
            from otelweir.selfmetrics import DebugLog

            log = DebugLog(sys.argv[1], max_bytes=20_000)
            log.event("begin")
            child = os.fork()
            for number in range(1000):
                log.event("x", number=number)
            if child:
                sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
            os._exit(0)
        """
        command = [sys.executable, "-c", textwrap.dedent(program), str(tmp_path / "debug")]
        processes = [subprocess.Popen(command) for _ in range(2)]
        assert [process.wait(60) for process in processes] == [0, 0]
        # A process that wrote as another put the file away may have added a line to it.
        assert all(path.stat().st_size < 22_000 for path in tmp_path.iterdir())
        assert sorted(path.name for path in tmp_path.iterdir()) == ["debug", "debug.1"]
        assert len(lines(tmp_path / "debug.1")) > 100

    def test_a_child_writes_though_a_thread_of_its_parent_did(
        self, tmp_path: Path, in_a_child: Callable[[Callable[[], bool]], bool]
    ) -> None:
        log = DebugLog(str(tmp_path / "debug"))
        held, go_on = threading.Event(), threading.Event()

        def hold() -> None:
            with log._lock:
                held.set()
                go_on.wait(10)

        thread = threading.Thread(target=hold)
        thread.start()
        assert held.wait(10)

        def writes() -> bool:
            log.event("child")
            [line] = lines(tmp_path / "debug")
            return bool(line["pid"] == os.getpid())

        assert in_a_child(writes)
        go_on.set()
        thread.join()
        assert [line["event"] for line in lines(tmp_path / "debug")] == ["child"]

    def test_who_hears_the_warning_may_wait_for_somebody_who_writes_here(self, tmp_path: Path) -> None:
        """A logging handler has a lock of its own, which a thread that writes here may hold."""
        ended: list[bool] = []

        def warn(_problem: Problem, _detail: str) -> None:
            if not ended:
                ended.append(False)
                thread = threading.Thread(target=log.event, args=("again",))
                thread.start()
                thread.join(10)
                ended.append(not thread.is_alive())

        (tmp_path / "debug").mkdir()
        log = DebugLog(str(tmp_path / "debug"), warn=warn)
        log.event("x")
        assert ended == [False, True]
