"""The member `ot` of the tracestate: read, written, and never at the cost of others."""

from __future__ import annotations

import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelweir.pipeline.sample.spans import head, rules, tracestate
from otelweir.pipeline.sample.spans.tracestate import MAX_LENGTH, SCALE, parse, with_threshold

VALUES = st.one_of(
    st.text(max_size=300),
    st.lists(
        st.one_of(
            st.from_regex(r"(th|rv|xy|[a-z0-9]{1,5}):[0-9a-f]{0,15}", fullmatch=True),
            st.text("thrv:;0f", max_size=10),
        ),
        max_size=40,
    ).map(";".join),
)
THRESHOLDS = st.integers(0, SCALE - 1)


@pytest.mark.parametrize("module", [tracestate, head, rules])
def test_the_examples_in_docstrings_hold(module: object) -> None:
    assert doctest.testmod(module).failed == 0  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("", (None, None)),
        ("th:0", (0, None)),
        ("th:c", (3 << 54, None)),
        ("th:123456789abcde", (0x123456789ABCDE, None)),
        ("rv:00000000000001", (None, 1)),
        ("xy:1;rv:ffffffffffffff;th:8;q:th:4", (1 << 55, SCALE - 1)),
        ("th:", (None, None)),
        ("th:C", (None, None)),
        ("th:123456789abcdef", (None, None)),
        ("rv:1", (None, None)),
        ("rv:0000000000000G", (None, None)),
        ("th", (None, None)),
        ("th:8;th:4", (1 << 55, None)),
    ],
)
def test_what_the_specification_allows_is_read_and_nothing_else(
    value: str, expected: tuple[int | None, int | None]
) -> None:
    assert parse(value)[:2] == expected


@given(VALUES)
def test_any_value_can_be_read(value: str) -> None:
    found = parse(value)
    assert all(number is None or 0 <= number < SCALE for number in found[:2])
    assert found.rest == with_threshold(value, None) and parse(found.rest) == (None, found.randomness, found.rest)


@given(THRESHOLDS)
def test_what_is_written_is_what_is_read(threshold: int) -> None:
    assert parse(with_threshold("", threshold)).threshold == threshold


@given(VALUES, st.none() | THRESHOLDS)
def test_other_keys_stay_and_the_length_is_bounded(value: str, threshold: int | None) -> None:
    found = with_threshold(value, threshold)
    others = [part for part in value.split(";") if part and part != "th" and not part.startswith("th:")]
    assert [part for part in found.split(";") if part and part != "th" and not part.startswith("th:")] == others
    assert len(found) <= max(MAX_LENGTH, len(value))
    assert parse(found).randomness == parse(";".join(others)).randomness
    assert parse(found).threshold in (threshold, None)


def test_a_threshold_for_which_there_is_no_room_is_left_out() -> None:
    """No threshold means that the count is not known; a wrong one would be a lie."""
    full = "xy:" + "1" * 253
    assert with_threshold(full, 1 << 55) == full
    assert with_threshold(f"th:8;{full}", 1 << 55) == full
