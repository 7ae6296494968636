"""SIGTERM ends a service as before, but for what it had to say."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from otelweir.testing import Backend

LAUNCHER = str(Path(sys.executable).with_name("opentelemetry-instrument"))


def start(backend: Backend, program: str, **environ: str) -> subprocess.Popen[str]:
    """A program under the launcher that prints `ready` when it may be ended."""
    return subprocess.Popen(
        [LAUNCHER, sys.executable, "-u", "-c", textwrap.dedent(program)],
        env={
            **os.environ,
            "OTEL_PYTHON_DISTRO": "weir",
            "OTEL_PYTHON_CONFIGURATOR": "weir",
            "OTEL_EXPORTER_OTLP_ENDPOINT": backend.endpoint,
            # Nothing may leave before the end.
            "OTEL_BLRP_SCHEDULE_DELAY": "60000",
            "OTEL_BSP_SCHEDULE_DELAY": "60000",
            "WEIR_SHUTDOWN_TIMEOUT": "30",  # a busy machine is no reason to lose anything
            **environ,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def end(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """End it with SIGTERM: its status, and what it printed after `ready` and on stderr."""
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=30)
    return process.returncode, out, err


LOGS = """
    import logging, signal, sys, time
    logging.basicConfig(level="INFO", stream=open("/dev/null", "w"))
    for number in range(100):
        logging.info("order %s placed", number)
    logging.error("failed")
"""
WAITS = """
    print("ready")
    while True:
        time.sleep(60)
"""


class TestAServiceThatDoesNotHandleSigterm:
    def test_sends_what_waits_and_dies_of_the_signal(self) -> None:
        with Backend() as backend:
            assert end(start(backend, LOGS + WAITS)) == (-signal.SIGTERM, "", "")
        assert [log.body for log in backend.logs if log.severity_text == "ERROR"] == ["failed"]
        seen = sum(log.attributes.get("weir.seen", 0) for log in backend.logs)
        assert seen == 101

    def test_dies_in_time_when_nobody_takes_what_waits(self) -> None:
        with Backend() as backend:
            nobody = backend.endpoint
            backend.stop()
            process = start(backend, LOGS + WAITS, OTEL_EXPORTER_OTLP_ENDPOINT=nobody, WEIR_SHUTDOWN_TIMEOUT="1")
            began = time.monotonic()
            status, _, _ = end(process)
        assert status == -signal.SIGTERM
        assert time.monotonic() - began < 25

    def test_may_keep_the_default_action(self) -> None:
        with Backend() as backend:
            program = "import signal\nassert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL\nprint('fine')"
            process = start(backend, program, WEIR_SIGTERM_FLUSH="false")
            assert process.communicate(timeout=30) == ("fine\n", "")


class TestAServiceThatHandlesSigterm:
    def test_is_left_alone(self) -> None:
        handler = """
    def stop(number, frame):
        print("stopping", number)
        sys.exit(7)
    signal.signal(signal.SIGTERM, stop)
"""
        with Backend() as backend:
            assert end(start(backend, LOGS + handler + WAITS)) == (7, "stopping 15\n", "")
        assert sum(log.attributes.get("weir.seen", 0) for log in backend.logs) == 101

    def test_may_call_the_handler_before_its_own(self) -> None:
        """With the default action there was none to call, and nothing happened."""
        handler = """
    before = signal.getsignal(signal.SIGTERM)
    done = []
    def stop(number, frame):
        if callable(before):
            before(number, frame)
        done.append(number)
    signal.signal(signal.SIGTERM, stop)
    print("ready")
    while not done:
        time.sleep(0.05)
    print("ended by itself")
"""
        with Backend() as backend:
            assert end(start(backend, LOGS + handler)) == (0, "ended by itself\n", "")

    def test_may_raise_the_signal_again_when_it_is_done(self) -> None:
        """As uvicorn does: it puts the handler before its own back, and raises the signal."""
        handler = """
    before = signal.getsignal(signal.SIGTERM)
    done = []
    signal.signal(signal.SIGTERM, lambda number, frame: done.append(number))
    print("ready")
    while not done:
        time.sleep(0.05)
    logging.error("the last word")
    signal.signal(signal.SIGTERM, before)
    signal.raise_signal(signal.SIGTERM)
"""
        with Backend() as backend:
            assert end(start(backend, LOGS + handler))[0] == -signal.SIGTERM
        assert "the last word" in [log.body for log in backend.logs]


def test_a_signal_does_not_cut_short_an_end_that_is_under_way() -> None:
    """A pool of processes ends its workers with the signal while they are ending already."""
    program = """
    import logging, multiprocessing
    def work(number):
        for _ in range(100):
            logging.getLogger("work").warning("step %s", number)
        logging.getLogger("work").error("failed %s", number)
    logging.getLogger("work").addHandler(logging.NullHandler())
    with multiprocessing.get_context("fork").Pool(2) as pool:
        pool.map(work, range(6))
    print("ready")
"""
    with Backend() as backend:
        process = start(backend, program)
        process.communicate(timeout=60)
        assert process.returncode == 0
        assert sum(log.severity_text == "ERROR" for log in backend.logs) == 6
        assert sum(log.attributes.get("weir.seen", 0) for log in backend.logs) == 606


def test_a_worker_that_waits_in_c_code_heeds_the_signal() -> None:
    """The signal may come just before the wait begins, where it wakes nobody; sent to another thread it never does."""
    program = """
    import logging, multiprocessing, signal, threading, time
    logging.getLogger().addHandler(logging.NullHandler())
    never = multiprocessing.Lock()
    never.acquire()
    def work():
        logging.error("failed")
        def end():
            time.sleep(0.3)
            signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
        threading.Thread(target=end).start()
        never.acquire()
    worker = multiprocessing.get_context("fork").Process(target=work)
    worker.start()
    worker.join(30)
    print(worker.exitcode)
    worker.kill()
"""
    with Backend() as backend:
        out, err = start(backend, program).communicate(timeout=60)
        assert (out, err) == (f"{-signal.SIGTERM}\n", "")
        assert [log.body for log in backend.logs if log.severity_text == "ERROR"] == ["failed"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_other_signals_are_not_touched(number: signal.Signals) -> None:
    with Backend() as backend:
        program = (
            f"import signal; print(signal.getsignal({int(number)}) in (signal.SIG_DFL, signal.default_int_handler))"
        )
        assert start(backend, program).communicate(timeout=30)[0] == "True\n"
