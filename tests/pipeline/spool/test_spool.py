"""What was accepted is handed out until it is finished, through crashes, forks, full disks and orphaned folders."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from otelweir import errors
from otelweir.errors import Problem
from otelweir.pipeline.spool import set_aside_in
from otelweir.pipeline.spool.otlp import Group
from otelweir.pipeline.spool.spool import Frame, Spool
from otelweir.signals import Lane, Loss

GROUP = Group(b"resource", b"scope")
MANY = 2**30


class Told:
    """What a spool says."""

    def __init__(self) -> None:
        self.losses: Counter[tuple[Lane, Loss]] = Counter()
        self.problems: list[str] = []

    def lost(self, lane: Lane, loss: Loss, records: int) -> None:
        self.losses[lane, loss] += records

    def warn(self, problem: Problem, detail: str) -> None:
        self.problems.append(problem.code)


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def make(tmp_path: Path, told: Told) -> Iterator[Callable[..., Spool]]:
    made: list[Spool] = []

    def spool(folder: Path | None = tmp_path / "shop", **options: Any) -> Spool:
        options = {"min_free_bytes": 0, "lost": told.lost, "warn": told.warn, **options}
        made.append(Spool(folder, **options))
        return made[-1]

    yield spool
    for one in made:
        one.close()


def add(spool: Spool, *records: bytes, lane: Lane = "logs", urgent: bool = False) -> list[bool]:
    return [spool.append(lane, (GROUP, record), urgent=urgent) for record in records]


def taken(spool: Spool, lane: Lane = "logs") -> list[bytes]:
    return [frame.record for frame in spool.take(lane, MANY)]


class TestHandingOut:
    @pytest.mark.parametrize("on_disk", [True, False])
    def test_is_in_order_and_once(self, make: Callable[..., Spool], tmp_path: Path, on_disk: bool) -> None:
        spool = make(tmp_path / "shop" if on_disk else None)
        add(spool, b"a", b"b", b"c")
        assert [spool.take("logs", MANY, 2)[1].record, *taken(spool), *taken(spool)] == [b"b", b"c"]

    def test_keeps_to_the_size_but_for_a_single_record(self, make: Callable[..., Spool]) -> None:
        spool = make()
        add(spool, b"a" * 100, b"b" * 30, b"c" * 30, b"d" * 30)
        sizes = [[len(frame.record) for frame in spool.take("logs", 60)] for _ in range(3)]
        assert sizes == [[100], [30, 30], [30]]

    def test_begins_again_with_what_was_given_back(self, make: Callable[..., Spool]) -> None:
        spool = make()
        add(spool, b"a", b"b", b"c")
        frames = spool.take("logs", MANY, 2)
        spool.give_back(reversed(frames))
        assert taken(spool) == [b"a", b"b", b"c"]

    def test_keeps_lanes_apart(self, make: Callable[..., Spool]) -> None:
        spool = make()
        add(spool, b"log")
        add(spool, b"span", lane="traces")
        assert (taken(spool, "traces"), taken(spool), taken(spool, "metrics")) == ([b"span"], [b"log"], [])

    def test_counts_what_waits(self, make: Callable[..., Spool]) -> None:
        now = 1000.0
        spool = make(clock=lambda: now)
        add(spool, b"a", b"b")
        now = 1010.0
        assert spool.waiting("logs")[::2] == (2, 10.0)
        spool.done(spool.take("logs", MANY))
        assert spool.waiting("logs") == (0, 0, 0.0)
        assert repr(spool).endswith("nothing waiting>")

    def test_a_strange_frame_changes_nothing(self, make: Callable[..., Spool]) -> None:
        spool = make()
        add(spool, b"a")
        spool.done([Frame("no id", GROUP, b""), Frame("0" * 24, GROUP, b"")])
        assert spool.waiting("logs").records == 1

    def test_files_of_finished_records_go(self, make: Callable[..., Spool], tmp_path: Path) -> None:
        spool = make(segment_bytes=4096)
        add(spool, *[b"x" * 100] * 200)
        spool.done(spool.take("logs", MANY))
        assert len(list(tmp_path.rglob("*.seg"))) <= 3, "the last one, and two that are used again"

    def test_a_record_larger_than_a_segment_has_a_place(self, make: Callable[..., Spool]) -> None:
        spool = make(segment_bytes=4096)
        add(spool, b"a", b"x" * 100_000, b"b")
        assert [len(record) for record in taken(spool)] == [1, 100_000, 1]


class TestAfterTheEnd:
    def test_the_next_process_sends_what_the_last_left(self, make: Callable[..., Spool]) -> None:
        first = make()
        add(first, b"a", b"b", b"c")
        frames = first.take("logs", MANY)
        first.done(frames[:1])
        first.close()
        second = make()
        assert second.adopt() == 2
        again = second.take("logs", MANY)
        assert again == frames[1:], "taking is not enough to forget, and the id stays"

    def test_a_closed_one_refuses_and_counts(self, make: Callable[..., Spool], told: Told) -> None:
        spool = make()
        spool.close()
        assert add(spool, b"a") == [False]
        assert told.losses == {("logs", Loss.ENDED): 1}

    def test_nothing_is_left_where_nothing_waits(self, make: Callable[..., Spool], tmp_path: Path) -> None:
        spool = make()
        add(spool, b"a")
        spool.done(spool.take("logs", MANY))
        spool.close()
        assert list((tmp_path / "shop").iterdir()) == []

    @pytest.mark.parametrize("end", ["os.kill(os.getpid(), 9)", "os._exit(3)", "os.abort()"])
    @pytest.mark.parametrize("before", ["", "del os.posix_fallocate"])
    def test_of_any_kind_every_accepted_record_is_there_once(
        self, make: Callable[..., Spool], tmp_path: Path, end: str, before: str
    ) -> None:
        program = f"""
import os, resource, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
{before or "pass"}
from otelweir.pipeline.spool import Group, Spool
spool = Spool(Path(sys.argv[1]), segment_bytes=16384, min_free_bytes=0)
for number in range(500):
    assert spool.append("logs", (Group(b"r", b"s"), b"%d" % number))
print(500, flush=True)
{end}
"""
        ended = subprocess.run([sys.executable, "-c", program, str(tmp_path / "shop")], stdout=subprocess.PIPE)
        assert (ended.returncode != 0, ended.stdout) == (True, b"500\n")
        spool = make()
        assert spool.adopt() == 500
        assert taken(spool) == [b"%d" % number for number in range(500)]

    def test_by_a_kill_in_the_middle_of_writing(self, make: Callable[..., Spool], tmp_path: Path) -> None:
        program = """
import os, sys
from pathlib import Path
from otelweir.pipeline.spool import Group, Spool
spool = Spool(Path(sys.argv[1]), segment_bytes=65536, min_free_bytes=0)
number = 0
while spool.append("logs", (Group(b"r", b"s"), b"%d" % number)):
    os.write(1, b"%d\\n" % number)
    number += 1
"""
        child = subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "shop")], stdout=subprocess.PIPE)
        assert child.stdout
        said = [child.stdout.readline() for _ in range(2000)]
        child.send_signal(signal.SIGKILL)
        said += child.stdout.readlines()
        child.stdout.close()
        child.wait()
        spool = make()
        spool.adopt()
        found = taken(spool)
        assert found[: len(said)] == [line.strip() for line in said]
        assert len(found) <= len(said) + 1, "the last may have been accepted before it could be said"

    @pytest.mark.parametrize("after", [0, 1, 2, 3])
    def test_by_a_kill_while_files_are_used_again(
        self, make: Callable[..., Spool], tmp_path: Path, told: Told, after: int
    ) -> None:
        """What was not yet delivered is there, and nothing looks damaged; what was may come again."""
        program = """
import os, sys, threading
from pathlib import Path
from otelweir.pipeline.spool import Group, Spool
spool = Spool(Path(sys.argv[1]), segment_bytes=8192, min_free_bytes=0)
def courier():
    while True:
        frames = spool.take("logs", 5000)
        os.write(1, b"".join(b"done %s\\n" % frame.record for frame in frames))
        spool.done(frames)
        spool.sync()
threading.Thread(target=courier, daemon=True).start()
number = 0
while spool.append("logs", (Group(b"r", b"s"), b"%d" % number)):
    os.write(1, b"kept %d\\n" % number)
    number += 1
"""
        child = subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "shop")], stdout=subprocess.PIPE)
        assert child.stdout
        said = [child.stdout.readline() for _ in range(3000 + 777 * after)]
        child.send_signal(signal.SIGKILL)
        said += child.stdout.readlines()
        child.stdout.close()
        child.wait()
        kept = {line.split()[1] for line in said if line.startswith(b"kept") and line.endswith(b"\n")}
        done = {line.split()[1] for line in said if line.startswith(b"done") and line.endswith(b"\n")}
        spool = make()
        spool.adopt()
        found = taken(spool)
        assert kept <= done | set(found)
        assert len(found) == len(set(found))
        assert (told.losses, told.problems) == ({}, [])


class TestCounts:
    """Accepted = delivered + lost + waiting, of this process."""

    def test_begin_with_what_was_taken_over(self, make: Callable[..., Spool]) -> None:
        first = make()
        add(first, b"a", b"b", b"c")
        first.done(first.take("logs", MANY, 1))
        first.close()
        assert (first.accepted("logs"), first.waiting("logs").records) == (3, 2), "what was left counts after the end"
        second = make()
        second.adopt()
        add(second, b"d")
        add(second, b"span", lane="traces")
        assert [second.accepted(lane) for lane in ("logs", "traces", "metrics")] == [3, 1, 0]

    def test_hold_through_damage(self, make: Callable[..., Spool], tmp_path: Path, told: Told) -> None:
        first = make()
        add(first, b"aaaa", b"bbbb", b"cccc")
        first.close()
        [file] = tmp_path.rglob("*.seg")
        file.write_bytes(file.read_bytes().replace(b"bbbb", b"bxbb"))
        second = make()
        assert (second.adopt(), second.accepted("logs"), sum(told.losses.values())) == (2, 3, 1)

    def test_hold_when_it_is_full(self, make: Callable[..., Spool], told: Told) -> None:
        for policy in ("drop_oldest", "refuse_newest"):
            spool = make(max_bytes=65536, segment_bytes=8192, when_full=policy)
            for number in range(2000):
                add(spool, b"x" * 100, urgent=number % 5 == 0)
            lost = sum(told.losses.values())
            assert spool.accepted("logs") == 2000 == lost + spool.waiting("logs").records
            spool.done(spool.take("logs", MANY))
            spool.close()
            told.losses.clear()

    def test_hold_after_the_end(self, make: Callable[..., Spool], told: Told) -> None:
        spool = make(None)
        add(spool, b"a", b"b")
        spool.close()
        add(spool, b"c")
        assert (spool.accepted("logs"), sum(told.losses.values()), spool.waiting("logs").records) == (3, 3, 0)

    @pytest.mark.parametrize("mapped", [True, False])
    def test_hold_with_threads(
        self, make: Callable[..., Spool], told: Told, mapped: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Several append, one takes, finishes and looks after the files, which are changed and used again meanwhile."""
        if not mapped:
            monkeypatch.delattr(os, "posix_fallocate")
        spool = make(segment_bytes=8192)
        found: list[bytes] = []
        over = threading.Event()

        def courier() -> None:
            while not over.is_set() or spool.waiting("logs").records:
                frames = spool.take("logs", 20_000)
                if len(frames) > 1:
                    spool.give_back(frames[:1])
                    del frames[0]
                found.extend(frame.record for frame in frames)
                spool.done(frames)
                spool.sync(now=True)

        def work(who: int) -> None:
            for number in range(3000):
                assert spool.append("logs", (GROUP, b"%d-%d" % (who, number)))

        threads = [threading.Thread(target=work, args=(who,)) for who in range(3)]
        sender = threading.Thread(target=courier)
        for thread in (sender, *threads):
            thread.start()
        for thread in threads:
            thread.join()
        over.set()
        sender.join()
        assert sorted(found) == sorted(b"%d-%d" % (who, number) for who in range(3) for number in range(3000))
        assert (spool.accepted("logs"), told.losses) == (9000, {})
        assert told.problems == ([] if mapped else ["WEIR-SPOOL-002"])

    def test_hold_when_threads_fill_it(self, make: Callable[..., Spool], told: Told) -> None:
        """Files are changed, used again, dropped and closed by different threads at once."""
        spool = make(segment_bytes=4096, max_bytes=100_000)
        done: Counter[Lane] = Counter()
        raised: list[Exception] = []
        over = threading.Event()
        lanes: list[Lane] = ["logs", "traces"]

        def courier() -> None:
            try:
                while not over.is_set():
                    for turn, lane in enumerate(lanes):
                        frames = spool.take(lane, 10_000)
                        spool.give_back(frames[: 5 * turn])
                        spool.done(frames[5 * turn :])
                        done[lane] += len(frames[5 * turn :])
                    spool.sync(now=len(frames) % 2 == 0)
            except Exception as error:
                raised.append(error)

        def work(who: int) -> None:
            try:
                for number in range(4000):
                    spool.append(lanes[(who + number) % 2], (GROUP, b"x" * (number % 700)), urgent=number % 9 == 0)
            except Exception as error:
                raised.append(error)

        threads = [threading.Thread(target=work, args=(who,)) for who in range(3)]
        sender = threading.Thread(target=courier)
        for thread in (sender, *threads):
            thread.start()
        for thread in threads:
            thread.join()
        over.set()
        sender.join()
        assert raised == []
        for lane in lanes:
            lost = sum(records for (of, _), records in told.losses.items() if of == lane)
            assert spool.accepted(lane) == 6000 == done[lane] + lost + spool.waiting(lane).records
        assert set(told.problems) <= {"WEIR-SPOOL-003"}


class TestParts:
    def test_what_is_fresh_goes_beside_what_is_old(self, make: Callable[..., Spool]) -> None:
        first = make()
        add(first, b"left")
        first.close()
        now = 1000.0
        spool = make(segment_bytes=4096, clock=lambda: now)
        spool.adopt()
        add(spool, b"a", b"x" * 4000)
        now = 1011.0
        add(spool, b"y" * 4000, b"c")
        assert [frame.record[:4] for frame in spool.take("logs", MANY, part="fresh")] == [b"yyyy", b"c"]
        assert [frame.record[:4] for frame in spool.take("logs", MANY, part="backlog")] == [b"left", b"a", b"xxxx"]

    def test_a_large_record_does_not_fall_behind(self, make: Callable[..., Spool]) -> None:
        spool = make(segment_bytes=4096)
        add(spool, b"a", b"x" * 3000, b"y" * 3000, b"b")
        assert [[frame.record[:1] for frame in spool.take("logs", 1000)] for _ in range(4)] == [
            [b"a"], [b"x"], [b"y"], [b"b"],
        ]  # fmt: skip


class TestStatus:
    def test_is_there_while_the_process_lives(self, make: Callable[..., Spool], tmp_path: Path) -> None:
        spool = make()
        spool.publish({"waiting": 0})
        assert list(tmp_path.rglob("status.json")) == [], "a process that wrote nothing has no folder"
        add(spool, b"a")
        spool.publish({"waiting": 1})
        spool.publish({"waiting": 2, "at": Path("x")})
        assert spool.home is not None
        status = spool.home / "status.json"
        assert json.loads(status.read_text()) == {"waiting": 2, "at": "x"}
        assert stat.S_IMODE(status.stat().st_mode) == 0o600
        endless: list[object] = []
        endless.append(endless)
        spool.publish({"of itself": endless})
        assert json.loads(status.read_text())["waiting"] == 2
        spool.done(spool.take("logs", MANY))
        spool.close()
        assert list((tmp_path / "shop").iterdir()) == []

    def test_of_a_dead_one_goes(self, make: Callable[..., Spool], tmp_path: Path) -> None:
        first = make()
        add(first, b"a")
        first.publish({})
        first.after_fork()  # as after a crash
        second = make()
        assert second.adopt() == 1
        assert list(tmp_path.rglob("status.json")) == []


class TestSpares:
    def spares(self, folder: Path) -> int:
        return sum(path.stat().st_size == 8192 for path in folder.rglob("*.seg"))

    def test_are_made_when_they_will_be_needed(self, make: Callable[..., Spool], tmp_path: Path) -> None:
        spool = make(segment_bytes=8192)
        spool.sync()
        assert list(tmp_path.rglob("*.seg")) == [], "an idle service has no files"
        add(spool, b"a")
        spool.sync()
        assert self.spares(tmp_path) == 0, "a little one begins with one small file"
        add(spool, b"x" * 3000)
        spool.sync()
        assert self.spares(tmp_path) == 1
        add(spool, b"b" * 3000)
        assert (self.spares(tmp_path), len(list(tmp_path.rglob("*.seg")))) == (1, 2), "it was taken into use"
        spool.sync()
        spool.close()
        again = make()
        assert again.adopt() == 3
        assert [record[:1] for record in taken(again)] == [b"a", b"x", b"b"]

    def test_go_with_the_process(self, make: Callable[..., Spool], tmp_path: Path) -> None:
        first = make(segment_bytes=8192)
        for _ in range(3):
            add(first, b"x" * 3000)
            first.sync()
        first.after_fork()  # as after a crash
        second = make()
        assert second.adopt() == 3
        second.done(second.take("logs", MANY))
        second.close()
        assert list((tmp_path / "shop").iterdir()) == []

    def test_are_not_the_reason_why_records_go(self, make: Callable[..., Spool], tmp_path: Path, told: Told) -> None:
        spool = make(segment_bytes=8192, max_bytes=65536)
        kept = 0
        while not told.losses and kept < 1000:
            add(spool, b"x" * 1000)
            spool.sync()
            kept += 1
        assert kept > 40
        # But when the next file is soon needed, room is made for it by who calls `sync`, not by who appends.
        for _ in range(200):
            before = len(told.losses)
            add(spool, b"x" * 1000)
            assert len(told.losses) == before
            spool.sync()
        assert spool.disk_bytes() == sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) <= 65536


class TestSeveralProcesses:
    def test_share_the_quota(self, make: Callable[..., Spool]) -> None:
        """Each looks at the others' files after at most four of its own, and whenever its own view says it is full."""
        spools = [make(segment_bytes=4096, max_bytes=256 * 1024) for _ in range(4)]
        for number in range(800):
            add(spools[number % 4], b"x" * 1000)
        assert spools[0].disk_bytes() <= 256 * 1024 + 4 * 4 * 4096


class TestOrphans:
    def test_the_living_keep_theirs(self, make: Callable[..., Spool]) -> None:
        first, second = make(), make()
        add(first, b"a")
        assert second.adopt() == 0
        assert taken(first) == [b"a"]

    def test_who_asks_while_another_thread_takes_them_over_has_them_too(
        self, make: Callable[..., Spool], tmp_path: Path
    ) -> None:
        """The courier begins with it; a process that ends a moment later must not leave them for the next start."""
        dead = make(segment_bytes=4096)
        for _ in range(300):
            add(dead, b"x" * 3000)
        dead.after_fork()
        spool = make()
        courier = threading.Thread(target=spool.adopt)
        courier.start()
        while spool.home is None:  # until the first files are moved
            time.sleep(0)
        found = spool.adopt()
        assert spool.waiting("logs").records == 300
        assert found == 0
        courier.join()

    def test_a_copy_is_not_sent(self, make: Callable[..., Spool], tmp_path: Path) -> None:
        first = make()
        add(first, b"a")
        first.close()
        [file] = tmp_path.rglob("*.seg")
        shutil.copy(file, file.with_name("logs-00000009-0000000000000001.seg"))
        second = make()
        second.adopt()
        assert taken(second) == [b"a"]
        assert len(list(tmp_path.rglob("*.corrupt"))) == 1

    def test_a_damaged_file_is_kept_with_a_note(self, make: Callable[..., Spool], tmp_path: Path, told: Told) -> None:
        first = make()
        add(first, b"aaaa", b"bbbb", b"cccc")
        first.close()
        [file] = tmp_path.rglob("*.seg")
        data = bytearray(file.read_bytes())
        data[data.index(b"bbbb")] ^= 1
        file.write_bytes(data)
        second = make()
        assert second.adopt() == 2
        frames = second.take("logs", MANY)
        assert [frame.record for frame in frames] == [b"aaaa", b"cccc"]
        second.done(frames)
        assert told.losses == {("logs", Loss.CORRUPT): 1}
        assert told.problems == ["WEIR-SPOOL-004"]
        assert sorted(path.suffix for path in (tmp_path / "shop" / "aside").iterdir()) == [".corrupt", ".json"]

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="the system cannot fork")
    def test_a_dead_parent_with_a_living_child_is_one(self, make: Callable[..., Spool], tmp_path: Path) -> None:
        """Both share the lock's open file; the child must let go of it."""
        program = """
import os, sys
from pathlib import Path
from otelweir.pipeline.spool import Group, Spool
spool = Spool(Path(sys.argv[1]), min_free_bytes=0)
spool.append("logs", (Group(b"r", b"s"), b"parent"))
if os.fork():
    os._exit(0)
assert spool.take("logs", 1000) == []
spool.append("logs", (Group(b"r", b"s"), b"child"))
print("ready", flush=True)
sys.stdin.read()
"""
        child = subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path / "shop")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert child.stdin
        assert child.stdout
        try:
            assert child.stdout.readline() == b"ready\n"
            child.wait()
            spool = make()
            spool.adopt()
            assert taken(spool) == [b"parent"]
        finally:
            child.stdin.close()
            child.stdout.read()
            child.stdout.close()


class TestWhenFull:
    def fill(self, spool: Spool, records: int = 2000) -> list[bytes]:
        names = [b"%05d" % number + b"x" * 95 for number in range(records)]
        return [name for name, kept in zip(names, add(spool, *names), strict=True) if kept]

    def on_disk(self, folder: Path) -> int:
        return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())

    @pytest.mark.parametrize("folder", [True, False])
    def test_the_oldest_go(self, make: Callable[..., Spool], tmp_path: Path, told: Told, folder: bool) -> None:
        spool = make(tmp_path / "shop" if folder else None, max_bytes=65536, segment_bytes=8192, memory_bytes=65536)
        accepted = self.fill(spool)
        left = taken(spool)
        lost = told.losses["logs", Loss.SPOOL_FULL if folder else Loss.NO_MEMORY]
        assert left == accepted[lost:]
        assert left[-1].startswith(b"01999")
        assert self.on_disk(tmp_path) <= 65536

    def test_or_the_newest_are_refused(self, make: Callable[..., Spool], tmp_path: Path, told: Told) -> None:
        spool = make(max_bytes=65536, segment_bytes=8192, when_full="refuse_newest")
        accepted = self.fill(spool)
        assert 0 < len(accepted) < 2000
        assert taken(spool) == accepted
        assert told.losses == {("logs", Loss.SPOOL_FULL): 2000 - len(accepted)}
        assert told.problems == ["WEIR-SPOOL-003"]
        assert self.on_disk(tmp_path) <= 65536

    @pytest.mark.parametrize("policy", ["drop_oldest", "refuse_newest"])
    def test_errors_go_last(self, make: Callable[..., Spool], policy: str) -> None:
        spool = make(max_bytes=65536, segment_bytes=8192, when_full=policy)
        add(spool, b"first error", urgent=True)
        self.fill(spool)
        assert add(spool, b"last error", urgent=True) == [True]
        self.fill(spool)
        left = taken(spool)
        assert left[0] == b"first error"
        assert b"last error" in left

    def test_there_is_room_again_when_records_are_done(self, make: Callable[..., Spool]) -> None:
        spool = make(max_bytes=65536, segment_bytes=8192, when_full="refuse_newest")
        self.fill(spool)
        spool.done(spool.take("logs", MANY))
        assert add(spool, b"a") == [True]

    def test_the_reserve_of_the_disk_is_left(self, make: Callable[..., Spool], tmp_path: Path, told: Told) -> None:
        """No disk has as much free: records wait in memory."""
        spool = make(min_free_bytes=2**60)
        assert add(spool, b"a") == [True]
        assert (taken(spool), list(tmp_path.rglob("*.seg"))) == ([b"a"], [])
        assert told.problems == ["WEIR-SPOOL-001"]


class TestTheFolder:
    def test_is_for_its_owner_alone(self, make: Callable[..., Spool], tmp_path: Path) -> None:
        (tmp_path / "shop").mkdir(mode=0o755)
        add(make(), b"a")
        modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*") if path.is_dir()}
        files = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*") if path.is_file()}
        assert (modes, files) == ({0o700}, {0o600})

    def test_is_no_link(self, make: Callable[..., Spool], tmp_path: Path, told: Told) -> None:
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "shop").symlink_to(tmp_path / "elsewhere")
        spool = make()
        assert (add(spool, b"a"), taken(spool)) == ([True], [b"a"])
        assert list((tmp_path / "elsewhere").iterdir()) == []
        assert told.problems == ["WEIR-SPOOL-001"]

    def test_is_nobody_elses(
        self, make: Callable[..., Spool], tmp_path: Path, told: Told, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "shop").mkdir()
        monkeypatch.setattr(os, "geteuid", lambda: (tmp_path / "shop").stat().st_uid + 1)
        spool = make()
        assert (add(spool, b"a"), taken(spool)) == ([True], [b"a"])
        assert list((tmp_path / "shop").iterdir()) == []
        assert told.problems == ["WEIR-SPOOL-001"]

    def test_may_be_deleted_under_us(self, make: Callable[..., Spool], tmp_path: Path) -> None:
        spool = make()
        add(spool, b"a")
        shutil.rmtree(tmp_path / "shop")
        add(spool, b"b")
        spool.sync(now=True)
        add(spool, b"c")
        assert taken(spool) == [b"a", b"b", b"c"]
        spool.after_fork()  # as after a crash
        again = make()
        again.adopt()
        assert taken(again) == [b"a", b"b", b"c"], "it is on disk again"

    def test_may_be_called_quota(self, make: Callable[..., Spool], tmp_path: Path, told: Told) -> None:
        """A short disk is not a reached quota, whatever the path says."""
        spool = make(tmp_path / "quota of 1 bytes" / "shop", min_free_bytes=2**60)
        assert (add(spool, b"a"), taken(spool)) == ([True], [b"a"])
        assert (told.problems, told.losses) == (["WEIR-SPOOL-001"], {})
        kept = make(tmp_path / "quota" / "shop")
        assert (add(kept, b"a"), taken(kept), kept.folder) == ([True], [b"a"], tmp_path / "quota" / "shop")

    def test_may_be_a_file(self, make: Callable[..., Spool], tmp_path: Path, told: Told) -> None:
        (tmp_path / "shop").write_text("no folder")
        spool = make()
        assert (add(spool, b"a"), taken(spool), spool.adopt()) == ([True], [b"a"], 0)
        assert told.problems == ["WEIR-SPOOL-001"]


class TestWithoutReservation:
    def test_records_are_written(
        self, make: Callable[..., Spool], tmp_path: Path, told: Told, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delattr(os, "posix_fallocate")
        spool = make()
        add(spool, b"a", b"b")
        add(spool, b"c", lane="traces")
        assert (taken(spool), taken(spool, "traces")) == ([b"a", b"b"], [b"c"])
        assert told.problems == ["WEIR-SPOOL-002"]
        assert len(list(tmp_path.rglob("*.seg"))) == 2

    def test_and_a_full_disk_leaves_memory(
        self, make: Callable[..., Spool], told: Told, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delattr(os, "posix_fallocate")
        spool = make()
        add(spool, b"a")

        def full(*_: object) -> int:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "pwrite", full)
        assert add(spool, b"b", b"c") == [True, True]
        assert taken(spool) == [b"a", b"b", b"c"]
        assert (told.problems, told.losses) == (["WEIR-SPOOL-002", "WEIR-SPOOL-001"], {})


class TestSetAside:
    def test_is_kept_with_its_reason_and_not_sent(self, make: Callable[..., Spool], tmp_path: Path) -> None:
        spool = make()
        add(spool, b"a", b"b")
        spool.set_aside(spool.take("logs", MANY, 1), "400: no such field")
        spool.close()
        again = make()
        assert again.adopt() == 1
        assert taken(again) == [b"b"]
        [file] = tmp_path.rglob("*.aside")
        [kept] = set_aside_in(file)
        assert (kept.lane, kept.reason, kept.group, kept.record) == ("logs", "400: no such field", GROUP, b"a")

    def test_has_a_limit(self, make: Callable[..., Spool], tmp_path: Path, told: Told) -> None:
        """What nobody will send must not take the place of what somebody will."""
        spool = make(max_bytes=256 * 1024, segment_bytes=8192)
        for number in range(100):
            add(spool, b"%03d" % number + b"x" * 3000)
            spool.set_aside(spool.take("logs", MANY), "400")
        spool.close()
        files = list(tmp_path.rglob("*.aside"))
        assert sum(path.stat().st_size for path in files) <= 64 * 1024
        assert max(kept.record[:3] for path in files for kept in set_aside_in(path)) == b"099"
        assert told.problems == ["WEIR-SPOOL-006"]


class TestASignalHandler:
    def test_may_log_while_a_file_is_changed(self, make: Callable[..., Spool], monkeypatch: pytest.MonkeyPatch) -> None:
        """It interrupts the thread that holds the lock; waiting for it would be forever."""
        spool = make(segment_bytes=4096)
        inside: list[bool] = []
        original = Spool._new_file

        def interrupted(self: Spool, lane: Lane, size: int) -> Any:
            if not inside:
                inside.append(True)
                inside.extend(add(spool, b"from the handler"))
            return original(self, lane, size)

        monkeypatch.setattr(Spool, "_new_file", interrupted)
        add(spool, b"from the thread")
        assert inside == [True, True]
        assert sorted(taken(spool)) == [b"from the handler", b"from the thread"]


class SpoolAgainstAModel(RuleBasedStateMachine):
    """Accepted = finished + lost + waiting, after whatever happens; nothing out of order, nothing twice but after a
    crash."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(os.path.realpath(tempfile.mkdtemp()))
        self.when_full = "drop_oldest"
        self.told = Told()
        self.appended = 0
        """By all processes."""
        self.here = 0
        """What came to this process."""
        self.finished = 0
        self.number = 0
        self.out: list[Frame] = []
        self.gone: set[bytes] = set()
        self.spoilt: dict[str, bytes] = {}
        """A record in each damaged file."""
        self.unnoted: set[bytes] = set()
        self.spool = self.fresh()

    def fresh(self) -> Spool:
        return Spool(
            self.folder / "shop",
            max_bytes=64 * 1024,
            segment_bytes=4096,
            min_free_bytes=0,
            fsync_s=float("inf"),
            when_full=self.when_full,  # type: ignore[arg-type]
            lost=self.told.lost,
            warn=self.told.warn,
        )

    def teardown(self) -> None:
        self.spool.close()
        shutil.rmtree(self.folder)

    @initialize(when_full=st.sampled_from(["drop_oldest", "refuse_newest"]))
    def begin(self, when_full: str) -> None:
        self.when_full = when_full
        self.spool = self.fresh()

    @rule(size=st.integers(0, 3000), times=st.integers(1, 30), urgent=st.booleans())
    def append(self, size: int, times: int, urgent: bool) -> None:
        for _ in range(times):
            self.number += 1
            self.appended += 1
            self.here += 1
            self.spool.append("logs", (GROUP, b"%08d" % self.number + b"x" * size), urgent=urgent)

    @rule(size=st.integers(1000, 6000))
    def fill(self, size: int) -> None:
        self.append(size, 64 * 1024 // size + 1, False)

    @rule(
        max_bytes=st.integers(0, 20000),
        max_records=st.integers(1, 50),
        part=st.sampled_from(["all", "fresh", "backlog"]),
    )
    def take(self, max_bytes: int, max_records: int, part: Any) -> None:
        frames = self.spool.take("logs", max_bytes, max_records, part=part)
        assert sum(len(frame.record) for frame in frames) <= max_bytes or len(frames) == 1
        names = [frame.record[:8] for frame in frames]
        assert names == sorted(names)
        assert not set(names) & (self.gone | {frame.record[:8] for frame in self.out})
        self.out += frames

    @rule(some=st.integers(0, 50))
    def done(self, some: int) -> None:
        self.end(some, self.spool.done)

    @rule(some=st.integers(0, 3))
    def set_aside(self, some: int) -> None:
        self.end(some, lambda frames: self.spool.set_aside(frames, "why"))

    def end(self, some: int, how: Callable[[list[Frame]], None]) -> None:
        frames, self.out = self.out[:some], self.out[some:]
        how(frames)
        self.finished += len(frames)
        self.gone |= {frame.record[:8] for frame in frames}

    @rule(some=st.integers(0, 50))
    def give_back(self, some: int) -> None:
        frames, self.out = self.out[some:], self.out[:some]
        self.spool.give_back(frames)

    @rule(now=st.booleans())
    def sync(self, now: bool) -> None:
        self.spool.sync(now=now)

    @rule(which=st.integers(0, 20), who=st.integers(0, 100))
    def corrupt(self, which: int, who: int) -> None:
        """One record of a file, that is not out."""
        files = sorted(self.folder.rglob("*.seg"), key=lambda file: file.name)
        files = [file for file in files if file.name not in self.spoilt]
        if not files:
            return
        file = files[which % len(files)]
        content = bytearray(file.read_bytes())
        out = self.gone | {frame.record[:8] for frame in self.out}
        names = [b"%08d" % number for number in range(1, self.number + 1)]
        names = [name for name in names if name in content and name not in out]
        if not names:
            return
        self.spoilt[file.name] = names[who % len(names)]
        with file.open("r+b") as spoiling:
            spoiling.seek(content.index(self.spoilt[file.name]))
            spoiling.write(b"!")

    @rule()
    def delete_the_folder(self) -> None:
        self.spool.give_back(self.out)
        self.out = []
        shutil.rmtree(self.folder / "shop", ignore_errors=True)
        self.unnoted |= set(self.spoilt.values())
        self.spool.sync(now=True)
        # Only who looks for a file finds out that it is gone.
        self.spool.give_back(self.spool.take("logs", MANY, MANY))

    @rule()
    def crash(self) -> None:
        # What the end of a process leaves: its files as they are, and its lock free.
        waiting = self.spool.waiting("logs").records
        self.spool.after_fork()
        self.next(waiting)

    @rule()
    def restart(self) -> None:
        waiting = self.spool.waiting("logs").records
        self.spool.close()
        assert self.spool.waiting("logs").records == waiting
        self.every_record_is_somewhere()
        self.next(waiting)

    def next(self, waiting: int) -> None:
        """A new process takes over what waits."""
        self.out = []
        self.here = waiting
        self.lost_before = sum(self.told.losses.values())
        self.finished_before = self.finished
        self.spool = self.fresh()
        self.spool.adopt()

    lost_before = finished_before = 0

    @invariant()
    def every_record_is_somewhere(self) -> None:
        lost = sum(self.told.losses.values())
        waiting, accepted = self.spool.waiting("logs").records, self.spool.accepted("logs")
        assert accepted == self.finished - self.finished_before + lost - self.lost_before + waiting
        # What was read before it was spoilt is sent, and the next process takes it for lost. A note that it was counted
        # is deleted with the folder.
        both = len(self.unnoted | self.gone.intersection(self.spoilt.values()))
        assert self.here <= accepted <= self.here + both
        assert self.appended <= self.finished + lost + waiting <= self.appended + both

    @invariant()
    def the_quota_holds(self) -> None:
        assert sum(path.stat().st_size for path in self.folder.rglob("*.*") if path.is_file()) <= 64 * 1024


TestModel = SpoolAgainstAModel.TestCase
TestModel.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_every_problem_of_the_spool_is_documented() -> None:
    page = Path(__file__).parents[3].joinpath("docs/troubleshooting.md").read_text(encoding="utf-8")
    assert all(f"### {code}" in page for code in errors.PROBLEMS if "SPOOL" in code)
