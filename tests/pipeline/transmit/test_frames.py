"""The names of a request's records tell whether a request comes twice."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from otelweir.pipeline.transmit.frames import MAX_LENGTH, header, overlap

IDS = st.sets(
    st.builds("{:016x}{:08x}".format, st.sampled_from([0, 7, 2**64 - 1]), st.integers(0, 300)), min_size=1, max_size=20
)


def stretches(ids: set[str]) -> set[str]:
    """The same records, and all that lie between them in their files."""
    files = {name[:16] for name in ids}
    places = {file: sorted(int(name[16:], 16) for name in ids if name[:16] == file) for file in files}
    return {f"{file}{at:08x}" for file, found in places.items() for at in range(found[0], found[-1] + 1)}


class TestHeader:
    def test_it_says_file_first_last_and_count(self) -> None:
        ids = ["90f1c3a2b4d5e6f700000040", "90f1c3a2b4d5e6f700001f80", "001122334455667700000040"]
        assert header(ids) == "90f1c3a2b4d5e6f7:40-1f80*2,0011223344556677:40-40*1"
        assert header(["90f1c3a2b4d5e6f700000000"]) == "90f1c3a2b4d5e6f7:0-0*1"

    def test_it_is_left_out_where_it_would_be_long(self) -> None:
        assert header(f"{file:016x}00000040" for file in range(500)) == ""
        assert 0 < len(header(f"{file:016x}00000040" for file in range(80))) <= MAX_LENGTH

    @given(st.lists(st.one_of(st.integers(), st.text(), st.text(alphabet="0g,:", min_size=24, max_size=24))))
    def test_what_is_no_name_of_a_record_does_not_go_out(self, ids: list[object]) -> None:
        value = header(ids)
        assert value == "" or value.isascii()
        assert header([*ids, "no id"]) == ""


class TestOverlap:
    @given(IDS, IDS)
    def test_it_is_true_exactly_if_the_stretches_have_records_in_common(self, one: set[str], other: set[str]) -> None:
        """So it is never false for requests that have."""
        assert overlap(header(sorted(one)), header(sorted(other))) == bool(stretches(one) & stretches(other))

    @given(IDS)
    def test_the_same_records_have_the_same_header_in_whatever_order(self, ids: set[str]) -> None:
        assert sorted(header(sorted(ids)).split(",")) == sorted(header(sorted(ids, reverse=True)).split(","))
        assert overlap(header(ids), header(ids))

    @given(IDS)
    def test_halves_do_not_overlap(self, ids: set[str]) -> None:
        """As a request is split that was too large."""
        ordered = sorted(ids)
        assert not overlap(header(ordered[: len(ordered) // 2]), header(ordered[len(ordered) // 2 :]))

    @given(st.text(), st.text())
    def test_nothing_breaks_it(self, one: str, other: str) -> None:
        assert overlap(one, other) in (True, False)
