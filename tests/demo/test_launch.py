"""The shop's process: started, watched, never left behind."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from otelweir.demo import launch
from otelweir.demo.launch import DemoError, Interrupted, Service, environment, launcher

LISTEN = "print('listening on port 7', flush=True); import signal, sys; "
OBEY = LISTEN + "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); print('ready', flush=True); signal.pause()"
DIE = "print('no such module'); raise SystemExit(3)"


@pytest.fixture
def told() -> threading.Event:
    return threading.Event()


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type]:
    """Services that run a program of ours; without the launcher, whose start takes a second."""
    monkeypatch.setattr(launch, "launcher", list)
    yield lambda program: Service(tmp_path, "http://127.0.0.1:9", ("-c", program))  # type: ignore[misc]


def is_running(service: Service) -> bool:
    return repr(service).startswith("<Service shop running")


class TestStart:
    def test_waits_until_it_listens(self, run: type, told: threading.Event) -> None:
        with run(OBEY) as service:
            service.start(told)
            assert service.port == 7
            assert is_running(service)
        assert not is_running(service)

    def test_a_service_that_ends_at_once_fails_with_what_it_said(self, run: type, told: threading.Event) -> None:
        with run(DIE) as service, pytest.raises(DemoError) as failed:
            service.start(told)
        assert str(failed.value).startswith("WEIR-SERVER-004: the service ended with exit code 3.")
        assert str(failed.value).endswith("\n\n  no such module")

    def test_a_service_that_never_listens_fails(
        self, run: type, told: threading.Event, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(launch, "START_TIMEOUT_S", 0.2)
        with run("import time; time.sleep(600)") as service:
            with pytest.raises(DemoError, match="does not listen"):
                service.start(told)
            assert is_running(service)
        assert not is_running(service), "leaving the context ends it"

    def test_can_be_interrupted(self, run: type, told: threading.Event) -> None:
        told.set()
        with run("import time; time.sleep(600)") as service, pytest.raises(Interrupted):
            service.start(told)
        assert not is_running(service)


class TestStop:
    def test_ends_well(self, run: type, told: threading.Event) -> None:
        with run(OBEY) as service:
            service.start(told)
            while "ready" not in service.output():
                told.wait(0.01)
            assert service.stop(told)

    def test_a_service_that_does_not_end_is_killed(
        self, run: type, told: threading.Event, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(launch, "STOP_TIMEOUT_S", 0.2)
        stubborn = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + LISTEN + "signal.pause()"
        with run(stubborn) as service:
            service.start(told)
            assert not service.stop(told)
        assert not is_running(service)

    def test_a_service_that_died_meanwhile_is_noticed(self, run: type, told: threading.Event) -> None:
        with run(LISTEN + "import os; os.kill(os.getpid(), signal.SIGSEGV)") as service:
            with pytest.raises(DemoError, match="SIGSEGV"):
                service.start(told)
                while True:
                    service.check()


class TestOneThatEndsByItself:
    @pytest.mark.parametrize(("program", "well"), [("print('done')", True), (DIE, False)])
    def test_is_waited_for(self, run: type, told: threading.Event, program: str, well: bool) -> None:
        with run(program) as service:
            assert service.finish(told) is well

    def test_is_not_waited_for_too_long(
        self, run: type, told: threading.Event, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(launch, "START_TIMEOUT_S", 0.2)
        with run("import time; time.sleep(600)") as service:
            assert not service.finish(told)
        assert not is_running(service)

    def test_can_be_interrupted(self, run: type, told: threading.Event) -> None:
        told.set()
        with run("import time; time.sleep(600)") as service, pytest.raises(Interrupted):
            service.finish(told)
        assert not is_running(service)


class TestEnvironment:
    def test_what_the_shell_says_about_telemetry_stays_out(self) -> None:
        inherited = {"OTEL_SDK_DISABLED": "true", "WEIR_LOG_SAMPLING": "off", "HOME": "/root"}
        variables = environment("http://127.0.0.1:1", inherited)
        assert variables["HOME"] == "/root"
        assert variables["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://127.0.0.1:1"
        assert not {"OTEL_SDK_DISABLED", "WEIR_LOG_SAMPLING"} & variables.keys()

    def test_a_service_may_have_variables_of_its_own(self, tmp_path: Path, told: threading.Event) -> None:
        program = ("-c", "import os; print(os.environ['OTEL_SERVICE_NAME'], os.environ['WEIR_FLIGHT_RECORDER'])")
        variables = {"OTEL_SERVICE_NAME": "assistant", "WEIR_FLIGHT_RECORDER": "errors", "OTEL_SDK_DISABLED": "true"}
        with Service(tmp_path, "http://127.0.0.1:9", program, variables) as service:
            assert service.finish(told)
            assert service.output() == "assistant errors"

    def test_no_proxy_comes_between(self) -> None:
        assert environment("", {"HTTP_PROXY": "http://proxy:3128"})["NO_PROXY"] == "127.0.0.1"

    def test_the_launcher_is_found_without_a_path(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("PATH", "")
        (found,) = launcher()
        assert Path(found).parent == Path(sys.executable).parent
        monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
        monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
        assert launcher()[:2] == [str(tmp_path / "python"), "-c"], "and without its script"
