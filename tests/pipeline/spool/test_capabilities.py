"""What a system cannot do is done without, chosen by the capability that is missing: nothing raised, nothing lost."""

from __future__ import annotations

import errno
import mmap
import os
import shutil
import stat
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from otelweir.errors import Problem
from otelweir.pipeline.spool import Group, Spool
from otelweir.pipeline.spool import segment as segment_module
from otelweir.pipeline.spool import spool as spool_module
from otelweir.pipeline.spool.segment import Segment

GROUP = Group(b"resource", b"scope")
RECORDS = [b"%d" % number for number in range(300)]


class Told:
    def __init__(self) -> None:
        self.problems: list[str] = []
        self.lost = 0

    def warn(self, problem: Problem, detail: str) -> None:
        self.problems.append(problem.code)

    def loss(self, lane: object, why: object, records: int) -> None:
        self.lost += records


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def make(tmp_path: Path, told: Told) -> Iterator[Callable[..., Spool]]:
    made: list[Spool] = []

    def spool(**options: Any) -> Spool:
        options = {"min_free_bytes": 0, "segment_bytes": 4096, "lost": told.loss, "warn": told.warn, **options}
        made.append(Spool(tmp_path / "shop", **options))
        return made[-1]

    yield spool
    for one in made:
        one.close()


def fill(spool: Spool) -> None:
    assert all(spool.append("logs", (GROUP, record)) for record in RECORDS)


def taken(spool: Spool) -> list[bytes]:
    return [frame.record for frame in spool.take("logs", 2**30)]


def run(program: str, *arguments: object) -> str:
    """What a program of its own prints."""
    code = textwrap.dedent(program)
    ended = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()


class TestWithoutLocks:
    @pytest.fixture(autouse=True)
    def no_locks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(spool_module, "fcntl", None)
        monkeypatch.setattr(spool_module, "msvcrt", None)

    def test_records_are_kept_and_nobody_elses_are_touched(self, make: Callable[..., Spool], told: Told) -> None:
        first, second = make(), make()
        fill(first)
        assert (second.adopt(), taken(first), told.problems) == (0, RECORDS, [])


class TestWithLocksOfAnotherKind:
    @pytest.fixture(autouse=True)
    def other_locks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """`msvcrt.locking`, as far as we use it."""
        flock, flags = spool_module.fcntl.flock, spool_module.fcntl.LOCK_EX | spool_module.fcntl.LOCK_NB
        monkeypatch.setattr(spool_module, "fcntl", None)
        monkeypatch.setattr(
            spool_module, "msvcrt", SimpleNamespace(LK_NBLCK=2, locking=lambda fd, mode, size: flock(fd, flags))
        )

    def test_the_living_keep_theirs_and_the_dead_are_heard(
        self, make: Callable[..., Spool], tmp_path: Path, told: Told
    ) -> None:
        first, second = make(), make()
        fill(first)
        assert second.adopt() == 0
        first.after_fork()  # as after a crash
        assert second.adopt() == len(RECORDS)
        assert (taken(second), told.problems) == (RECORDS, [])
        assert len([path for path in (tmp_path / "shop").iterdir() if path.is_dir()]) == 1

    def test_no_folder_is_renamed_that_has_an_open_file(
        self, make: Callable[..., Spool], monkeypatch: pytest.MonkeyPatch, told: Told
    ) -> None:
        rename = Path.rename

        def strict(path: Path, target: Any) -> Path:
            assert not path.is_dir()
            return rename(path, target)

        monkeypatch.setattr(Path, "rename", strict)
        spool = make()
        fill(spool)
        assert (spool.home is not None, told.problems) == (True, [])


class TestWithoutMappings:
    @pytest.mark.parametrize("number", [errno.EINVAL, errno.ENODEV, errno.ENOMEM])
    def test_records_are_written(
        self, make: Callable[..., Spool], told: Told, monkeypatch: pytest.MonkeyPatch, number: int
    ) -> None:
        monkeypatch.setattr(mmap, "mmap", _Refusing)
        _Refusing.number = number
        spool = make()
        fill(spool)
        spool.sync(now=True)
        spool.after_fork()  # as after a crash
        again = make()
        again.adopt()
        assert (taken(again), told.problems, told.lost) == (RECORDS, ["WEIR-SPOOL-002"], 0)


class _Refusing(mmap.mmap):
    number = 0

    def __new__(cls, *_: Any, **__: Any) -> _Refusing:
        raise OSError(cls.number, os.strerror(cls.number))


class TestWithoutReservation:
    @pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ENODEV])
    def test_records_are_written(
        self, make: Callable[..., Spool], told: Told, monkeypatch: pytest.MonkeyPatch, number: int
    ) -> None:
        """As on a network file system."""
        monkeypatch.setattr(os, "posix_fallocate", _failing(number))
        spool = make()
        fill(spool)
        assert (taken(spool), told.problems, told.lost) == (RECORDS, ["WEIR-SPOOL-002"], 0)


def _failing(number: int) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> Any:
        raise OSError(number, os.strerror(number))

    return fail


class TestWithoutASystemCall:
    @pytest.mark.parametrize("name", ["statvfs", "geteuid", "fchmod", "posix_fallocate", "pwrite", "pread"])
    def test_nothing_is_lost(
        self, make: Callable[..., Spool], told: Told, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        monkeypatch.delattr(os, name)
        if name in {"pwrite", "pread"}:  # where these are missing, so is the reservation
            monkeypatch.delattr(os, "posix_fallocate")
        spool = make()
        fill(spool)
        spool.sync(now=True)
        spool.after_fork()
        again = make()
        again.adopt()
        assert (taken(again), told.lost) == (RECORDS, 0)

    @pytest.mark.parametrize("name", ["register_at_fork", "O_NOFOLLOW", "posix_fallocate", "O_NONBLOCK"])
    def test_nor_does_the_import_need_it(self, tmp_path: Path, name: str) -> None:
        program = """
            import logging, os, secrets, sys
            from pathlib import Path
            delattr(os, sys.argv[2])
            from otelweir.pipeline.spool import Group, Spool
            folder = Path(sys.argv[1])
            spool = Spool(folder / "shop", min_free_bytes=0, warn=lambda *_: None)
            spool.append("logs", (Group(b"r", b"s"), b"a"))
            spool.close()
            [file] = folder.rglob("*.seg")
            file.with_name("logs-00000009-0000000000000001.seg").symlink_to(file)
            again = Spool(folder / "shop", min_free_bytes=0, warn=lambda problem, detail: print(problem.code))
            again.adopt()
            print([frame.record for frame in again.take("logs", 1000)])
            again.close()
            """
        assert run(program, tmp_path, name) == "WEIR-SPOOL-004\n[b'a']", "a link is not followed either way"


class TestALockThatIsNotGranted:
    def test_keeps_others_away_for_good(
        self, make: Callable[..., Spool], told: Told, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As on a file system without locks."""
        monkeypatch.setattr(spool_module.fcntl, "flock", _failing(errno.ENOLCK))
        first, second = make(), make()
        fill(first)
        assert (second.adopt(), taken(first), told.problems) == (0, RECORDS, [])


class TestAFullDisk:
    def test_leaves_memory_and_is_used_again_when_there_is_room(
        self, make: Callable[..., Spool], told: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as full:
            full.setattr(os, "posix_fallocate", _failing(errno.ENOSPC))
            full.setattr(os, "pwrite", _failing(errno.ENOSPC))
            spool = make()
            fill(spool)
            spool.sync(now=True)
            assert list(tmp_path.rglob("*.seg")) == []
        first = spool.take("logs", 2**30, 100)
        spool.done(first[:50])
        spool.sync(now=True)
        spool.give_back(first[50:])
        assert spool.append("logs", (GROUP, b"last"))
        spool.after_fork()  # as after a crash
        again = make()
        assert again.adopt() == len(RECORDS) - 50 + 1
        assert taken(again) == [*RECORDS[50:], b"last"]
        assert (told.problems, told.lost) == (["WEIR-SPOOL-001"], 0)

    @pytest.mark.parametrize("before", ["", "del os.posix_fallocate"])
    def test_of_a_real_kind_ends_nothing(self, tmp_path: Path, before: str) -> None:
        """The kernel refuses, in the middle of a file, too."""
        program = f"""
            import os, resource, sys
            from pathlib import Path
            {before or "pass"}
            from otelweir.pipeline.spool import Group, Spool
            said = []
            spool = Spool(Path(sys.argv[1]), min_free_bytes=0, warn=lambda problem, detail: said.append(problem.code))
            group = Group(b"r", b"s")
            add = lambda start: all(spool.append("logs", (group, b"%d" % n)) for n in range(start, start + 500))
            assert add(0)
            resource.setrlimit(resource.RLIMIT_FSIZE, (5000, resource.RLIM_INFINITY))
            assert add(500)
            spool.sync(now=True)
            assert spool.append("logs", (group, b"x" * 300_000))
            spool.sync(now=True)
            frames = spool.take("logs", 2**30)
            print([int(frame.record) for frame in frames[:-1]] == list(range(1000)), len(frames), said[-1])
            """
        assert run(program, tmp_path / "shop") == "True 1001 WEIR-SPOOL-001"


class TestAWriteThatFailsOnce:
    def test_costs_no_record_and_holds_none_up(
        self, make: Callable[..., Spool], told: Told, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delattr(os, "posix_fallocate")
        spool = make()
        assert spool.append("logs", (GROUP, b"a"))
        write, fails = os.pwrite, [True]
        monkeypatch.setattr(os, "pwrite", lambda *what: _failing(errno.EIO)() if fails.pop() else write(*what))
        fails[:] = [*[False] * 50, True]
        assert spool.append("logs", (GROUP, b"b"))
        assert spool.append("logs", (GROUP, b"c"))
        assert (taken(spool), told.lost, told.problems) == ([b"a", b"b", b"c"], 0, ["WEIR-SPOOL-002"])


class TestAFolderThatMayNotBeWritten:
    PROGRAM = """
        import os, sys
        from pathlib import Path
        from otelweir.pipeline.spool import Group, Spool
        folder = Path(sys.argv[1])
        said = []
        def add(spool, *records):
            return [spool.append("logs", (Group(b"r", b"s"), record)) for record in records]
        def become_nobody():
            if os.geteuid() == 0:
                os.chown(folder, 65534, 65534)
                os.setuid(65534)
        spool = Spool(folder / "shop", min_free_bytes=0, segment_bytes=4096, max_bytes=2**20,
                      warn=lambda problem, detail: said.append(problem.code))
        """

    def test_from_the_beginning(self, tmp_path: Path) -> None:
        folder = self.reachable(tmp_path)
        program = """
            become_nobody()
            folder.chmod(0o500)
            print(add(spool, b"a", b"b"))
            spool.sync(now=True)
            print([frame.record for frame in spool.take("logs", 1000)], spool.adopt(), said)
            folder.chmod(0o700)
            """
        said = run(textwrap.dedent(self.PROGRAM) + textwrap.dedent(program), folder)
        assert said == "[True, True]\n[b'a', b'b'] 0 ['WEIR-SPOOL-001']"

    def test_from_some_time_on_and_not_for_ever(self, tmp_path: Path) -> None:
        folder = self.reachable(tmp_path)
        program = """
            become_nobody()
            records = [b"%d" % number + b"x" * 100 for number in range(200)]
            add(spool, *records[:50])
            home = spool.home
            home.chmod(0)
            add(spool, *records[50:150])
            spool.sync(now=True)
            home.chmod(0o700)
            spool.sync(now=True)
            add(spool, *records[150:])
            spool.after_fork()
            again = Spool(folder / "shop", min_free_bytes=0)
            again.adopt()
            print([frame.record for frame in again.take("logs", 2**20)] == records, said)
            again.close()
            """
        said = run(textwrap.dedent(self.PROGRAM) + textwrap.dedent(program), folder)
        assert said == "True ['WEIR-SPOOL-001']"

    def test_nor_looked_into(self, tmp_path: Path) -> None:
        folder = self.reachable(tmp_path)
        program = """
            become_nobody()
            records = [b"%d" % number + b"x" * 100 for number in range(200)]
            add(spool, *records[:100])
            folder.chmod(0)
            add(spool, *records[100:])
            spool.sync(now=True)
            spool.publish({})
            spool.adopt(), spool.disk_bytes(), repr(spool)
            folder.chmod(0o700)
            spool.sync(now=True)
            print([frame.record for frame in spool.take("logs", 2**20)] == records, said)
            folder.chmod(0)
            spool.close()
            folder.chmod(0o700)
            """
        said = run(textwrap.dedent(self.PROGRAM) + textwrap.dedent(program), folder)
        assert said == "True ['WEIR-SPOOL-001']"

    def reachable(self, tmp_path: Path) -> Path:
        """A folder that other users reach, too."""
        for folder in [tmp_path, *tmp_path.parents]:
            if folder.stat().st_uid == os.getuid() and not folder.stat().st_mode & stat.S_IXOTH:
                folder.chmod(folder.stat().st_mode | stat.S_IXGRP | stat.S_IXOTH)
        (tmp_path / "state").mkdir()
        return tmp_path / "state"


class TestOtherMachines:
    """Without a GIL, or with the bytes of a word the other way round, a lock stands around each append."""

    def test_write_the_same_files(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(segment_module, "_Plain", segment_module._Locked)
        locked = Segment.create(tmp_path, "logs", 2**16, 1, 1.0, mapped=True)
        in_memory = Segment.in_memory("logs", 2**16, 1, 1.0)
        for number, record in enumerate(RECORDS):
            assert locked.append(GROUP, record, number % 2 == 0, 5)
            assert in_memory.append(GROUP, record, number % 2 == 0, 5)
        locked.seal()
        assert [record for _, _, record in in_memory.take(2**20, 10**6)] == RECORDS
        assert locked.path is not None
        again = Segment.open(locked.path)
        assert ([record for _, _, record in again.take(2**20, 10**6)], again.damage) == (RECORDS, [])

    def test_and_use_them_again(
        self, make: Callable[..., Spool], told: Told, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setattr(segment_module, "_Plain", segment_module._Locked)
        spool = make()
        for _ in range(5):
            fill(spool)
            frames = spool.take("logs", 2**30)
            assert [frame.record for frame in frames] == RECORDS
            spool.done(frames)
            spool.sync()
        shutil.rmtree(tmp_path / "shop")
        spool.sync(now=True)
        assert (spool.waiting("logs").records, told.lost) == (0, 0)
