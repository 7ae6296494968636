"""The file format: what was written whole is found, and nothing else is."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otelweir.pipeline.spool.otlp import Group
from otelweir.pipeline.spool.segment import ASIDE, DELIVERED, START, Found, Segment, frames

SHOP = Group(b"resource of the shop", b"scope")
DESK = Group(b"resource of the desk", b"")

records = st.lists(st.binary(max_size=80), min_size=1, max_size=12)


def written(folder: Path, contents: list[bytes], *, mapped: bool = True) -> Path:
    segment = Segment.create(folder, "logs", 2**18, 1, 1000.0, mapped=mapped)
    for number, record in enumerate(contents):
        assert segment.append((SHOP, DESK)[number % 2], record, number % 3 == 0, 1000 + number)
    segment.seal()
    assert segment.path is not None
    return segment.path


def read(segment: Segment) -> list[tuple[Group, bytes]]:
    return [(group, record) for _, group, record in segment.take(2**30, 10**6)]


def pairs(contents: list[bytes]) -> list[tuple[Group, bytes]]:
    return [((SHOP, DESK)[number % 2], record) for number, record in enumerate(contents)]


@pytest.mark.parametrize("mapped", [True, False])
class TestAFile:
    def test_gives_back_what_was_written(self, tmp_path: Path, mapped: bool) -> None:
        contents = [b"", b"a", b"bc" * 500, b"\xf5WR\n" * 8]
        assert read(Segment.open(written(tmp_path, contents, mapped=mapped))) == pairs(contents)

    def test_is_read_while_it_is_written(self, tmp_path: Path, mapped: bool) -> None:
        segment = Segment.create(tmp_path, "logs", 2**16, 1, 1000.0, mapped=mapped)
        segment.append(SHOP, b"one", False, 1)
        assert read(segment) == [(SHOP, b"one")]
        segment.append(SHOP, b"two", False, 2)
        assert read(segment) == [(SHOP, b"two")]
        assert read(segment) == []

    def test_refuses_what_has_no_room(self, tmp_path: Path, mapped: bool) -> None:
        segment = Segment.create(tmp_path, "logs", 4096, 1, 1000.0, mapped=mapped)
        while segment.append(SHOP, b"x" * 100, False, 1):
            pass
        assert segment.records == len(read(segment)) > 10
        assert not segment.append(SHOP, b"x" * 100, False, 1)

    def test_is_for_its_owner_alone(self, tmp_path: Path, mapped: bool) -> None:
        path = written(tmp_path, [b"a"], mapped=mapped)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600

    def test_remembers_what_is_finished(self, tmp_path: Path, mapped: bool) -> None:
        path = written(tmp_path, [b"a", b"b", b"c"], mapped=mapped)
        segment = Segment.open(path)
        (first, *_), (second, *_), _ = segment.take(2**20, 10)
        segment.mark(segment.finish([first]), DELIVERED)
        segment.mark(segment.finish([second]), ASIDE)
        again = Segment.open(path)
        assert (again.records, again.waiting) == (3, 1)
        assert read(again) == [(SHOP, b"c")]

    @given(
        contents=st.lists(st.binary(max_size=80) | st.just(b"large" * 3000), min_size=1, max_size=12), data=st.data()
    )
    def test_marks_change_nothing_but_the_states(
        self, tmp_path_factory: pytest.TempPathFactory, mapped: bool, contents: list[bytes], data: st.DataObject
    ) -> None:
        """However many are written with one call."""
        path = written(tmp_path_factory.mktemp("marks"), contents, mapped=mapped)
        segment = Segment.open(path)
        places = [at for at, _, _ in segment.take(2**30, 10**6)]
        finished = data.draw(st.lists(st.sampled_from(places), unique=True))
        expected = bytearray(path.read_bytes())
        for at in finished:
            expected[at + 12] = DELIVERED
        segment.mark(segment.finish(finished), DELIVERED)
        assert path.read_bytes() == expected

    def test_writes_a_group_once(self, tmp_path: Path, mapped: bool) -> None:
        path = written(tmp_path, [b"a"] * 50, mapped=mapped)
        assert path.read_bytes().count(SHOP.resource) == 1

    def test_a_copy_of_a_frame_elsewhere_is_none(self, tmp_path: Path, mapped: bool) -> None:
        """Repeated content, or a record that holds a file of the spool, must not be delivered twice."""
        path = written(tmp_path, [b"a", b"b"], mapped=mapped)
        data = path.read_bytes()
        path.write_bytes(data + data[START:] + data)
        assert read(Segment.open(path)) == pairs([b"a", b"b"])
        held = tmp_path / "held"
        held.mkdir()
        assert read(Segment.open(written(held, [data], mapped=mapped))) == [(SHOP, data)]


class TestWithoutTheLastWrite:
    def test_a_frame_is_not_there(self, tmp_path: Path) -> None:
        """A process killed before the size was written has not accepted the record."""
        path = written(tmp_path, [b"aaaa", b"bbbb"])
        data = bytearray(path.read_bytes())
        last = data.rindex(b"bbbb") - 20
        data[last : last + 4] = bytes(4)
        path.write_bytes(data)
        segment = Segment.open(path)
        assert (read(segment), segment.damage) == ([(SHOP, b"aaaa")], [])


class TestThreads:
    def test_take_no_place_twice(self, tmp_path: Path) -> None:
        segment = Segment.create(tmp_path, "logs", 2**21, 1, 1000.0, mapped=True)

        def work(who: int) -> None:
            for number in range(2000):
                assert segment.append(SHOP, b"%d-%d" % (who, number), False, 1)

        threads = [threading.Thread(target=work, args=(who,)) for who in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        found = [record for _, record in read(segment)]
        assert sorted(found) == sorted(b"%d-%d" % (who, number) for who in range(4) for number in range(2000))
        for who in range(4):
            assert [record for record in found if record.startswith(b"%d-" % who)] == [
                b"%d-%d" % (who, number) for number in range(2000)
            ]


@st.composite
def damage(draw: st.DrawFn, data: bytes) -> tuple[bytes, set[int]]:
    """Damaged content, and the places of bytes that are not what they were (or not where they were)."""
    spoilt = bytearray(data)
    touched: set[int] = set()
    for _ in range(draw(st.integers(1, 4))):
        match draw(st.sampled_from(["flip", "noise", "cut", "repeat"])):
            case "flip":
                at = draw(st.integers(0, max(0, len(spoilt) - 1)))
                if at < len(spoilt):
                    spoilt[at] ^= 1 << draw(st.integers(0, 7))
                    touched.add(at)
            case "noise":
                at = draw(st.integers(0, len(spoilt)))
                noise = draw(st.binary(max_size=60))
                spoilt[at : at + len(noise)] = noise[: len(spoilt) - at]
                touched.update(range(at, at + len(noise)))
            case "cut":
                at = draw(st.integers(0, len(spoilt)))
                touched.update(range(at, len(data)))
                del spoilt[at:]
            case "repeat":
                spoilt += spoilt[draw(st.integers(0, len(spoilt))) :]
    return bytes(spoilt), touched


class TestDamage:
    @settings(max_examples=150)
    @given(contents=records, data=st.data())
    def test_costs_no_whole_record_and_delivers_no_torn_one(
        self, tmp_path_factory: pytest.TempPathFactory, contents: list[bytes], data: st.DataObject
    ) -> None:
        """Whole records stand before and after the damage; only those whose group is damaged go with it."""
        folder = tmp_path_factory.mktemp("damage")
        path = written(folder, contents)
        whole = path.read_bytes()
        seed = Segment.open(path)._seed
        found = [frame for frame in frames(whole, seed) if isinstance(frame, Found)]
        spoilt, touched = data.draw(damage(whole))
        path.write_bytes(spoilt)

        intact = [f for f in found if not touched & (set(range(f.at, f.at + f.size)) - {f.at + 12})]
        groups = {frame.group for frame in intact if frame.kind == 3}
        must = [frame.payload for frame in intact if frame.kind != 3 and frame.group in groups]
        if touched & set(range(START)):  # an identity that came through whole by chance is not needed: the name has it
            pass
        segment = Segment.open(path)
        got = read(segment)
        state_touched = any(f.at + 12 in touched for f in found)
        # Noise on a state byte may say "finished"; one flipped bit may not.
        if not state_touched:
            left = [record for _, record in got]
            for payload in must:
                assert payload in left
                left.remove(payload)
        for pair in got:
            assert pair in pairs(contents)
        assert len(got) <= len(contents)

    @given(at=st.integers(0, 7), contents=records)
    def test_one_flipped_bit_of_a_state_is_harmless(
        self, tmp_path_factory: pytest.TempPathFactory, at: int, contents: list[bytes]
    ) -> None:
        path = written(tmp_path_factory.mktemp("state"), contents)
        data = bytearray(path.read_bytes())
        for frame in list(frames(bytes(data), Segment.open(path)._seed)):
            assert isinstance(frame, Found)
            data[frame.at + 12] ^= 1 << at
        path.write_bytes(data)
        assert read(Segment.open(path)) == pairs(contents)

    @given(content=st.binary(max_size=500))
    def test_noise_holds_nothing(self, tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
        path = tmp_path_factory.mktemp("noise") / "logs-00000001-00000000000000ff.seg"
        path.write_bytes(content)
        assert read(Segment.open(path)) == []

    def test_found_while_reading_is_counted(self, tmp_path: Path) -> None:
        """The process knows how many it wrote."""
        path = written(tmp_path, [b"aaaa", b"bbbb", b"cccc"])
        segment = Segment.open(path)
        data = bytearray(path.read_bytes())
        data[data.index(b"bbbb")] ^= 1
        path.write_bytes(data)
        assert read(segment) == [(SHOP, b"aaaa"), (SHOP, b"cccc")]
        assert (segment.missing(), segment.missing()) == (1, 0)

    def test_in_many_places_is_no_deep_matter(self, tmp_path: Path) -> None:
        path = written(tmp_path, [b"%04d" % number for number in range(1500)])
        data = bytearray(path.read_bytes())
        for number in range(1, 1500, 2):
            data[data.index(b"%04d" % number)] ^= 0xFF
        path.write_bytes(data)
        assert len(read(Segment.open(path))) == 750


class TestASymbolicLink:
    def test_is_not_followed(self, tmp_path: Path) -> None:
        path = written(tmp_path, [b"a"])
        link = tmp_path / "logs-00000009-0000000000000001.seg"
        link.symlink_to(path)
        with pytest.raises(OSError, match="symbolic"):
            Segment.open(link)


class TestWithoutReservation:
    def test_nothing_is_mapped_and_nothing_left(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A sparse mapping on a full disk ends the process."""
        monkeypatch.delattr(os, "posix_fallocate")
        with pytest.raises(NotImplementedError):
            Segment.create(tmp_path, "logs", 4096, 1, 1.0, mapped=True)
        assert list(tmp_path.iterdir()) == []

    def test_writing_needs_no_pwrite(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delattr(os, "pwrite")
        monkeypatch.delattr(os, "pread")
        path = written(tmp_path, [b"a", b"b"], mapped=False)
        assert read(Segment.open(path)) == pairs([b"a", b"b"])
