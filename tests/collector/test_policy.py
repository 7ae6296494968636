"""A sampling policy without a control plane: a file that the sidecar's host serves, or one that is mounted."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.collector.conftest import WAIT_S, free_port

from otelweir.testing import Backend

if TYPE_CHECKING:
    from tests.collector.conftest import Service

KEEP_NOTHING_TWICE = "sampling: on\nfirst: 1\nwindow: 1h\nrates: {info: 0}\n"
KEEP_ALL = "sampling: off\n"


@pytest.fixture
def host(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder, and the address under which any web server serves it; here the one that comes with Python."""
    folder, port = tmp_path / "policies", free_port()
    folder.mkdir()
    server = subprocess.Popen(
        [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "--directory", str(folder)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield folder, f"http://127.0.0.1:{port}/policy.yaml"
    finally:
        server.kill()
        server.wait()


class TestAPolicy:
    @pytest.mark.parametrize("way", ["served", "mounted"])
    def test_is_obeyed_and_so_is_its_change(
        self, host: tuple[Path, str], service: Callable[..., Service], backend: Backend, tmp_path: Path, way: str
    ) -> None:
        folder, address = host
        (folder / "policy.yaml").write_text(KEEP_NOTHING_TWICE)
        where = {"WEIR_POLICY_URL": address} if way == "served" else {"WEIR_POLICY_FILE": str(folder / "policy.yaml")}
        shop = service(
            backend.endpoint,
            WEIR_LOG_SAMPLING="on",
            WEIR_LOG_RATES="info=1",
            WEIR_POLICY_REFRESH="1",
            WEIR_POLICY_CACHE=str(tmp_path / "cache"),
            **where,
        )

        def kept() -> int:
            """Of ten orders."""
            backend.clear()
            shop.run("""
                for n in range(10):
                    logger.info("order %d", n)
                logger.error("end")
            """)
            backend.wait_for(lambda: any(log.body == "end" for log in backend.logs), WAIT_S)
            return sum(str(log.body).startswith("order") for log in backend.logs)

        backend.wait_for(lambda: kept() < 10, WAIT_S)
        (folder / "policy.yaml").write_text(KEEP_ALL)
        backend.wait_for(lambda: kept() == 10, WAIT_S)
        assert "WEIR-" not in shop.err
