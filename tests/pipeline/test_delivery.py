"""The spool and the courier together, before a real server: what was accepted arrives, whoever dies on the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from otelweir.pipeline.spool import Spool, join
from otelweir.pipeline.transmit import Courier, Gate, HttpSender, Route
from otelweir.selfmetrics import Count, Tally
from otelweir.testing import Answer, Backend, Clock

APPLICATION = """
    import os, signal, sys
    from pathlib import Path
    from types import SimpleNamespace
    from opentelemetry.sdk._logs import LoggerProvider
    from otelweir.pipeline.spool import Spool, encode_log

    spool = Spool(Path(sys.argv[1]), min_free_bytes=0)
    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(SimpleNamespace(on_emit=lambda record: spool.append("logs", encode_log(record))))
    logger = provider.get_logger("shop")
    for number in range(int(sys.argv[3]), int(sys.argv[4])):
        logger.emit(body=f"order {number}")
    exec(sys.argv[2])
"""

ENDS = {
    "SIGKILL": "os.kill(os.getpid(), signal.SIGKILL)",
    "os._exit": "os._exit(0)",
    "abort": "import resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); os.abort()",
    "the usual end": "spool.close()",
}


@pytest.fixture
def backend() -> Iterator[Backend]:
    with Backend() as backend:
        yield backend


class Sidecar:
    """A process beside the application that sends what dead ones left."""

    def __init__(self, folder: Path, endpoint: str) -> None:
        self.clock = Clock()
        self.accepted = 0
        self.tally = Tally(lambda lane: self.accepted)
        self.spool = Spool(folder, min_free_bytes=0, lost=self.tally.lost)
        self.sender = HttpSender(f"{endpoint}/v1/logs", dict, compression="gzip")
        self.courier = Courier(
            self.spool,
            {"logs": Route(self.sender, Gate(endpoint, clock=self.clock))},
            join=join,
            counts=self.tally,
            clock=self.clock,
        )

    def adopt(self) -> int:
        adopted = self.spool.adopt()
        self.accepted += adopted
        return adopted

    def send(self) -> None:
        """Until nothing waits, however often the server is asked."""
        for _ in range(100):
            while self.courier.turn():
                pass
            if self.spool.waiting("logs").records == 0:
                break
            self.clock.advance(self.courier.wait_s() + 0.1)

    def close(self) -> None:
        self.sender.close()
        self.spool.close()


def run(folder: Path, end: str, first: int, last: int) -> int:
    program = [sys.executable, "-c", textwrap.dedent(APPLICATION), str(folder), end, str(first), str(last)]
    return subprocess.run(program, check=False, timeout=60, stderr=subprocess.DEVNULL).returncode


@pytest.mark.parametrize("end", ENDS)
def test_what_a_process_left_arrives_once(end: str, tmp_path: Path, backend: Backend) -> None:
    code = run(tmp_path / "shop", ENDS[end], 0, 500)
    assert code in (0, -signal.SIGKILL, -signal.SIGABRT)
    sidecar = Sidecar(tmp_path / "shop", backend.endpoint)
    assert sidecar.adopt() == 500
    sidecar.send()
    assert [log.body for log in backend.logs] == [f"order {number}" for number in range(500)]
    assert sidecar.tally.of("logs") == Count(delivered=500)
    sidecar.close()
    assert Sidecar(tmp_path / "shop", backend.endpoint).adopt() == 0


def test_several_deaths_and_an_outage_lose_nothing(tmp_path: Path, backend: Backend) -> None:
    for number in range(4):
        run(tmp_path / "shop", ENDS["SIGKILL"], number * 100, number * 100 + 100)
    sidecar = Sidecar(tmp_path / "shop", backend.endpoint)
    assert sidecar.adopt() == 400
    backend.stop()
    for _ in range(10):
        sidecar.courier.turn()
        sidecar.clock.advance(sidecar.courier.wait_s())
    assert sidecar.tally.of("logs") == Count(waiting=400)
    assert sidecar.spool.waiting("logs").records == 400
    backend.start()
    backend.answers += [Answer(429, {"Retry-After": "30"}), Answer(413), Answer(503)]
    sidecar.send()
    assert Counter(log.body for log in backend.logs) == Counter(f"order {number}" for number in range(400))
    assert sidecar.tally.of("logs") == Count(delivered=400)
    sidecar.close()


def test_a_sender_that_dies_leaves_what_was_not_acknowledged(tmp_path: Path, backend: Backend) -> None:
    """Its heir sends what was never taken, and what was out when it died."""
    run(tmp_path / "shop", ENDS["os._exit"], 0, 300)
    sidecar = Sidecar(tmp_path / "shop", backend.endpoint)
    sidecar.adopt()
    taken = sidecar.spool.take("logs", 3_000)
    assert 0 < len(taken) < 300
    sidecar.spool.done(taken)
    # As its death would leave it: taken, neither done nor given back.
    sidecar.spool.take("logs", 3_000)
    sidecar.spool.close()
    heir = Sidecar(tmp_path / "shop", backend.endpoint)
    assert heir.adopt() == 300 - len(taken)
    heir.send()
    assert [log.body for log in backend.logs] == [f"order {number}" for number in range(len(taken), 300)]
    heir.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_that_is_killed_leaves_only_its_own(tmp_path: Path, backend: Backend) -> None:
    end = """
child = os.fork()
for number in range(10):
    logger.emit(body=f"{'child' if child == 0 else 'parent'} {number}")
if child == 0:
    os.kill(os.getpid(), signal.SIGKILL)
os.waitpid(child, 0)
os._exit(0)
"""
    assert run(tmp_path / "shop", end, 0, 5) == 0
    sidecar = Sidecar(tmp_path / "shop", backend.endpoint)
    assert sidecar.adopt() == 25
    sidecar.send()
    expected = [f"order {number}" for number in range(5)]
    expected += [f"{who} {number}" for who in ("child", "parent") for number in range(10)]
    assert Counter(log.body for log in backend.logs) == Counter(expected)
    sidecar.close()
