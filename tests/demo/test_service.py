"""The shop: an ordinary service that logs as services do."""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from otelweir.demo import service


@pytest.fixture
def client(caplog: pytest.LogCaptureFixture) -> Iterator[TestClient]:
    caplog.set_level(logging.DEBUG, "shop")
    with TestClient(service.app, raise_server_exceptions=False) as client:
        yield client


def pay(client: TestClient, card: str) -> int:
    client.post("/carts/c/items", json={"product": 101, "quantity": 2})
    status: int = client.post("/carts/c/checkout", json={"card": card, "customer": 1}).status_code
    return status


class TestTheShop:
    def test_sells(self, client: TestClient) -> None:
        assert client.get("/health").json() == {"status": "ok"}
        assert client.get("/products").json()["103"] == "mug"
        assert client.get("/products/103").json()["price"] == 8.9
        assert client.get("/products/999").status_code == 404
        assert pay(client, "valid") == 200

    def test_a_bad_card_is_logged_with_its_exception(
        self, client: TestClient, caplog: pytest.LogCaptureFixture
    ) -> None:
        assert pay(client, "declined") == 402
        (error,) = [record for record in caplog.records if record.levelno == logging.ERROR]
        assert error.exc_info
        assert error.exc_info[0] is service.CardDeclinedError

    def test_a_silent_provider_is_critical_after_three_warnings(
        self, client: TestClient, caplog: pytest.LogCaptureFixture
    ) -> None:
        assert pay(client, "slow") == 503
        payment = [record.levelname for record in caplog.records if record.name == "shop.payment"]
        assert payment.count("WARNING") == 3
        assert "CRITICAL" in [record.levelname for record in caplog.records]

    def test_a_missing_price_is_an_exception_that_nobody_catches(self, client: TestClient) -> None:
        assert client.get("/products/106").status_code == 500


class TestItsProcess:
    @pytest.fixture
    def shop(self, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
        started: list[subprocess.Popen[str]] = []

        def start(*arguments: str, stdin: int) -> subprocess.Popen[str]:
            command = [sys.executable, "-m", service.__name__, "--log-file", str(tmp_path / "log"), *arguments]
            process = subprocess.Popen(
                command, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
            started.append(process)
            assert process.stdout
            assert process.stdout.readline().startswith("listening on port")
            return process

        yield start
        for process in started:
            process.kill()
            process.communicate()

    def test_ends_with_its_input_when_told_to(self, shop: Callable[..., subprocess.Popen[str]]) -> None:
        process = shop("--until-eof", stdin=subprocess.PIPE)
        assert process.stdin
        process.stdin.close()
        assert process.wait(timeout=30) == 0
        process.stdin = None

    def test_runs_on_without_an_input_otherwise(self, shop: Callable[..., subprocess.Popen[str]]) -> None:
        """As when somebody starts it by hand, in the background or not."""
        process = shop(stdin=subprocess.DEVNULL)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=1)
        process.terminate()
        assert process.wait(timeout=30) in (0, -signal.SIGTERM)


class TestItsLogFile:
    def test_has_a_line_for_each_record_and_an_id_for_each_error(self, tmp_path: Path) -> None:
        path = tmp_path / "service.log"
        program = f"""
import logging
from pathlib import Path
from otelweir.demo.service import configure_logging
configure_logging(Path({str(path)!r}))
log = logging.getLogger("shop.x")
log.debug("a")
log.warning("b %d\\n", 1)
log.error("c")
try:
    1 / 0
except ZeroDivisionError:
    logging.getLogger("another").exception("d")
"""
        subprocess.run([sys.executable, "-c", program], check=True, stderr=subprocess.DEVNULL)
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        assert [line["level"] for line in lines] == ["DEBUG", "WARNING", "ERROR", "ERROR"]
        assert "ZeroDivisionError" in lines[3]["exception"]
        assert ["incident" in line for line in lines] == [False, False, True, True]
        assert lines[2]["incident"] != lines[3]["incident"]

    def test_the_shop_knows_nothing_of_weir(self) -> None:
        """What Weir does to it, the launcher and variables bring."""
        source = Path(service.__file__).read_text()
        assert [line for line in source.splitlines() if "import" in line and "otelweir" in line] == []
