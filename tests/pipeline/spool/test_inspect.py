"""Looking at spools from outside: what is there is told, and nothing is changed."""

from __future__ import annotations

import fcntl
import json
import os
import random
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelweir.pipeline.spool import Group, Spool
from otelweir.pipeline.spool.aside import delete_spent, hand_over
from otelweir.pipeline.spool.inspect import (
    Cache,
    Record,
    aside_in,
    contents,
    is_held,
    look,
    processes_in,
    records,
    services_in,
)
from otelweir.pipeline.spool.segment import DELIVERED, START, WAITING, Damage, Segment, set_aside_in

GROUP = Group(b"resource", b"scope")


def spool_in(folder: Path) -> Spool:
    return Spool(folder, min_free_bytes=0, segment_bytes=8192)


def filled(folder: Path, count: int = 10) -> Spool:
    spool = spool_in(folder)
    for number in range(count):
        assert spool.append("logs", (GROUP, f"record {number}".encode()))
    return spool


def snapshot(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """Every file with its times and content."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.stat().st_mode, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


class TestALivingProcess:
    def test_is_seen_with_what_waits(self, tmp_path: Path) -> None:
        spool = filled(tmp_path)
        (process,) = look(tmp_path).processes
        assert (process.pid, process.state, process.problem) == (os.getpid(), "running", "")
        assert sum(found.waiting for found in process.files) == 10
        spool.close()

    def test_nothing_of_it_is_changed(self, tmp_path: Path) -> None:
        spool = filled(tmp_path)
        before = snapshot(tmp_path)
        for path in services_in(tmp_path):
            for process in look(path).processes:
                for found in process.files:
                    assert len(list(records(found.path))) == found.records
        assert snapshot(tmp_path) == before
        spool.close()

    def test_what_was_delivered_or_set_aside_waits_no_more(self, tmp_path: Path) -> None:
        spool = filled(tmp_path)
        spool.done(spool.take("logs", 30, 3))
        spool.set_aside(spool.take("logs", 30, 2), "too odd")
        service = look(tmp_path)
        (found,) = [found for found in service.processes[0].files if found.records]
        assert (found.records, found.delivered, found.set_aside, found.waiting) == (10, 3, 2, 5)
        (aside,) = service.aside
        assert (aside.waiting, dict(aside.reasons)) == (2, {"too odd": 2})
        spool.close()

    def test_a_file_that_is_written_to_is_read_again(self, tmp_path: Path) -> None:
        """A mapping leaves no time behind."""
        cache: Cache = {}
        spool = filled(tmp_path)
        assert sum(found.waiting for found in look(tmp_path, cache).processes[0].files) == 10
        spool.append("logs", (GROUP, b"one more"))
        assert sum(found.waiting for found in look(tmp_path, cache).processes[0].files) == 11
        spool.close()

    def test_holds_its_lock_whoever_looks(self, tmp_path: Path) -> None:
        spool = filled(tmp_path)
        (folder,) = processes_in(tmp_path)
        assert [is_held(folder) for _ in range(3)] == [True] * 3
        assert spool_in(tmp_path).adopt() == 0
        spool.close()
        assert is_held(folder) is False

    def test_has_its_lock_though_somebody_looks_all_the_time(self, tmp_path: Path) -> None:
        """The lock is taken before the folder can be found."""
        over = threading.Event()

        def look_on() -> None:
            while not over.is_set():
                for folder in processes_in(tmp_path):
                    is_held(folder)

        onlooker = threading.Thread(target=look_on)
        onlooker.start()
        try:
            for _ in range(100):
                spool = filled(tmp_path, 1)
                assert spool.home is not None
                assert is_held(spool.home)
                assert spool_in(tmp_path).adopt() == 0
                spool.done(spool.take("logs", 100))
                spool.close()
        finally:
            over.set()
            onlooker.join()


class TestADeadProcess:
    def test_is_an_orphan(self, tmp_path: Path) -> None:
        filled(tmp_path).close()
        (process,) = look(tmp_path).processes
        assert (process.state, sum(found.waiting for found in process.files)) == ("orphan", 10)
        assert list(processes_in(tmp_path).values()) == ["orphan"]

    def test_two_who_look_at_once_do_not_take_each_other_for_it(self, tmp_path: Path) -> None:
        filled(tmp_path).close()
        (folder,) = processes_in(tmp_path)
        with (folder / "lock").open() as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            assert is_held(folder) is False

    def test_can_be_adopted_after_it_was_looked_at(self, tmp_path: Path) -> None:
        filled(tmp_path).close()
        look(tmp_path)
        heir = spool_in(tmp_path)
        assert heir.adopt() == 10
        heir.close()

    def test_ids_are_those_by_which_records_are_handed_out(self, tmp_path: Path) -> None:
        filled(tmp_path).close()
        seen = [record.id for found in look(tmp_path).processes[0].files for record in records(found.path)]
        heir = spool_in(tmp_path)
        heir.adopt()
        assert [frame.id for frame in heir.take("logs", 10**6)] == seen
        heir.close()


class TestDamage:
    def file(self, folder: Path) -> Path:
        filled(folder).close()
        return next(found.path for found in look(folder).processes[0].files if found.records)

    def test_a_stretch_is_told_and_the_rest_counted(self, tmp_path: Path) -> None:
        path = self.file(tmp_path)
        third = list(records(path))[2]
        data = bytearray(path.read_bytes())
        data[third.at + 22] ^= 1
        path.write_bytes(data)
        found = contents(path)
        assert (found.records, found.damage) == (9, (Damage(third.at, third.at + third.size),))
        assert not found.is_whole

    def test_a_torn_tail_is_none(self, tmp_path: Path) -> None:
        """Without a size nothing was promised."""
        path = self.file(tmp_path)
        whole = contents(path)
        with path.open("ab") as file:
            file.write(bytes(4) + b"half a frame")
        found = contents(path)
        assert found.is_whole
        assert found.torn is not None
        assert found.records == whole.records

    def test_a_header_that_is_lost_costs_no_record(self, tmp_path: Path) -> None:
        path = self.file(tmp_path)
        path.write_bytes(bytes(START) + path.read_bytes()[START:])
        found = contents(path)
        assert (found.records, found.damage) == (10, (Damage(0, START),))

    def test_a_file_of_zeros_was_never_begun(self, tmp_path: Path) -> None:
        path = tmp_path / "logs-00000001-0123456789abcdef.seg"
        for size in (0, 10, 8192):
            path.write_bytes(bytes(size))
            assert contents(path).is_whole

    @given(st.integers(0, 2**32), st.integers(1, 40))
    def test_says_what_recovery_says(self, seed: int, flips: int) -> None:
        """Two ways to read the same bytes."""
        chance = random.Random(seed)
        with tempfile.TemporaryDirectory() as folder:
            segment = Segment.create(Path(folder), "logs", 4096, 1, 1.0, mapped=False)
            path = segment.path
            assert path is not None
            for number in range(30):
                segment.append(Group(b"r", bytes([number % 3])), chance.randbytes(number), False, number)
            segment.seal()
            data = bytearray(path.read_bytes())
            for _ in range(flips):
                data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
            path.write_bytes(data[: chance.randrange(len(data))] if flips % 2 else data)
            opened, found = Segment.open(path), contents(path)
            assert (found.records, found.waiting) == (opened.records, opened.waiting)
            assert len(list(records(path))) == opened.records
            if path.stat().st_size:  # of one that is empty, nothing was promised
                assert found.is_whole == (not opened.damage)

    def test_what_was_put_away_is_told_with_its_reason(self, tmp_path: Path) -> None:
        path = self.file(tmp_path)
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
        heir = spool_in(tmp_path)
        heir.adopt()
        heir.done(heir.take("logs", 10**6))
        heir.close()
        (file,) = look(tmp_path).corrupt
        assert file.lane == "logs"
        assert "1 damaged stretch" in file.reason


class TestFolders:
    def test_a_service_is_found_by_itself_and_from_above(self, tmp_path: Path) -> None:
        filled(tmp_path / "cart").close()
        filled(tmp_path / "shop").close()
        (tmp_path / "something else").mkdir()
        assert services_in(tmp_path) == [tmp_path / "cart", tmp_path / "shop"]
        assert services_in(tmp_path / "cart") == [tmp_path / "cart"]

    def test_that_of_a_process_can_be_looked_at_alone(self, tmp_path: Path) -> None:
        filled(tmp_path).close()
        (folder,) = processes_in(tmp_path)
        assert services_in(folder) == [folder]
        assert [process.folder for process in look(folder).processes] == [folder]

    def test_an_empty_one_holds_no_service(self, tmp_path: Path) -> None:
        assert services_in(tmp_path) == []
        assert look(tmp_path).processes == ()

    def test_one_that_went_away_is_a_problem_in_words(self, tmp_path: Path) -> None:
        assert look(tmp_path / "gone").problem == "No such file or directory"

    def test_links_are_not_followed(self, tmp_path: Path) -> None:
        filled(tmp_path / "elsewhere").close()
        (process,) = processes_in(tmp_path / "elsewhere")
        (tmp_path / "shop").mkdir()
        (tmp_path / "shop" / process.name).symlink_to(process)
        assert look(tmp_path / "shop").processes == ()

    def test_a_note_of_something_else_is_no_note(self, tmp_path: Path) -> None:
        (tmp_path / "aside").mkdir()
        (tmp_path / "aside" / "logs-00000001-0123456789abcdef.corrupt").write_bytes(b"x")
        for note in ("", "[]", "{", json.dumps({"reason": 3}), "[" * 100_000):
            (tmp_path / "aside" / "logs-00000001-0123456789abcdef.json").write_text(note)
            assert [file.reason for file in look(tmp_path).corrupt] == ["not said"]


class TestHandingOver:
    def keeper(self, kept: list[bytes], most: int = 100) -> Callable[[Record], bool]:
        def keep(record: Record) -> bool:
            if len(kept) < most:
                kept.append(record.record)
                return True
            return False

        return keep

    @pytest.fixture
    def spool(self, tmp_path: Path) -> Spool:
        spool = filled(tmp_path)
        spool.set_aside(spool.take("logs", 10**6, 4), "too odd")
        return spool

    def test_what_is_kept_elsewhere_is_gone_from_here(self, spool: Spool, tmp_path: Path) -> None:
        (path,) = aside_in(tmp_path)
        kept: list[bytes] = []
        assert hand_over(path, self.keeper(kept), lambda: None) == 4
        assert kept == [f"record {number}".encode() for number in range(4)]
        assert [record.state for record in records(path)] == [DELIVERED] * 4
        assert hand_over(path, lambda record: True, lambda: None) == 0
        spool.close()

    def test_the_first_that_is_not_kept_ends_it(self, spool: Spool, tmp_path: Path) -> None:
        (path,) = aside_in(tmp_path)
        kept: list[bytes] = []
        assert hand_over(path, self.keeper(kept, most=2), lambda: None) == 2
        assert [record.state for record in records(path)] == [DELIVERED, DELIVERED, WAITING, WAITING]
        spool.close()

    def test_nothing_is_marked_before_it_is_on_disk(self, spool: Spool, tmp_path: Path) -> None:
        (path,) = aside_in(tmp_path)
        states: list[int] = []
        hand_over(path, lambda record: True, lambda: states.extend(record.state for record in records(path)))
        assert states == [WAITING] * 4
        spool.close()

    def test_the_process_goes_on_writing_to_the_file(self, spool: Spool, tmp_path: Path) -> None:
        (path,) = aside_in(tmp_path)
        hand_over(path, lambda record: True, lambda: None)
        spool.set_aside(spool.take("logs", 10**6, 1), "odd, too")
        assert [record.reason for record in records(path) if record.state == WAITING] == ["odd, too"]
        assert len(set_aside_in(path)) == 5
        spool.close()

    def test_two_at_once_do_not_take_the_same(self, spool: Spool, tmp_path: Path) -> None:
        (path,) = aside_in(tmp_path)
        meanwhile: list[int] = []
        kept: list[bytes] = []

        def at_the_same_time() -> None:
            meanwhile.append(hand_over(path, self.keeper(kept), lambda: None))

        assert hand_over(path, self.keeper(kept), at_the_same_time) == 4
        assert (meanwhile, len(kept)) == ([0], 4)
        spool.close()

    def test_only_what_is_spent_is_deleted(self, spool: Spool, tmp_path: Path) -> None:
        spool.close()
        delete_spent(aside_in(tmp_path))
        (path,) = aside_in(tmp_path)
        hand_over(path, lambda record: True, lambda: None)
        delete_spent(aside_in(tmp_path))
        assert aside_in(tmp_path) == []
