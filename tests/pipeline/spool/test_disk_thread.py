"""The disk confirms what was written, whoever else is busy."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from otelweir.pipeline.spool import Group, Spool
from otelweir.pipeline.spool.disk_thread import DiskThread

RECORD = (Group(b"resource", b"scope"), b"record")


class Syncs:
    """Lets one wait for the next fsync."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._happened = threading.Semaphore(0)
        before = os.fsync

        def fsync(fd: int) -> None:
            before(fd)
            self._happened.release()

        monkeypatch.setattr(os, "fsync", fsync)

    def one_more(self, within_s: float = 20.0) -> bool:
        return self._happened.acquire(timeout=within_s)


@pytest.fixture
def syncs(monkeypatch: pytest.MonkeyPatch) -> Syncs:
    return Syncs(monkeypatch)


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    spool = Spool(tmp_path / "shop", min_free_bytes=0, fsync_s=0.05)
    yield spool
    spool.close()


def test_what_was_written_is_confirmed_again_and_again(spool: Spool, syncs: Syncs) -> None:
    thread = DiskThread(spool, 0.05)
    for _ in range(3):
        assert spool.append("logs", RECORD)
        assert syncs.one_more()
    thread.stop()


def test_it_lives_on_when_the_disk_fails(spool: Spool, syncs: Syncs, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as broken:
        failed = threading.Event()

        def fail() -> None:
            failed.set()
            raise OSError("gone")

        broken.setattr(spool, "sync", fail)
        thread = DiskThread(spool, 0.05)
        assert failed.wait(20)
    spool.append("logs", RECORD)
    assert syncs.one_more()
    thread.stop()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_child_has_one_of_its_own(spool: Spool, syncs: Syncs) -> None:
    thread = DiskThread(spool, 0.05)
    child = os.fork()
    if child == 0:
        thread.after_fork()
        spool.append("logs", RECORD)
        os._exit(0 if syncs.one_more() else 1)
    assert os.waitpid(child, 0)[1] == 0
    thread.stop()


def test_once_stopped_it_stays_so_in_children_too(spool: Spool, syncs: Syncs) -> None:
    thread = DiskThread(spool, 0.05)
    thread.stop()
    thread.after_fork()
    spool.append("logs", RECORD)
    assert not syncs.one_more(within_s=0.5)
