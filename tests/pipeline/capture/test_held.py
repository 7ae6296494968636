"""What is held of a call that is not kept: nothing that can change, nothing large, and nobody's code is run for it."""

from __future__ import annotations

import datetime
import decimal
import pathlib
import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelweir.pipeline.capture.held import MAX_HELD, MAX_ITEMS, frozen, frozen_args, frozen_pairs
from otelweir.pipeline.capture.values import message_of


class Touchy:
    """Every way to look at it is counted."""

    touched = 0

    def _touch(self, *_: object) -> Any:
        type(self).touched += 1
        raise RuntimeError

    __str__ = __repr__ = __format__ = __eq__ = __iter__ = __len__ = __getitem__ = __bool__ = _touch
    __hash__ = object.__hash__


class Loud(str):
    def __str__(self) -> str:
        raise RuntimeError


class TouchyError(Exception):
    def __str__(self) -> str:
        raise RuntimeError


NOW = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("text", "text"),
        (b"bytes", "b'bytes'"),
        (1.5, "1.5"),
        (None, "None"),
        (NOW, str(NOW)),
        (uuid.UUID(int=1), str(uuid.UUID(int=1))),
        (decimal.Decimal("1.10"), "1.10"),
        (pathlib.Path("/a"), "/a"),
        ([1, "a"], "[1, 'a']"),
        ({"a": 1}, "{'a': 1}"),
        ((1,), "(1,)"),
        ([[1]], "[<list of 1>]"),
        ({1, 2}, "<set of 2>"),
        (list(range(100)), "<list of 100>"),
        ("x" * 5000, "x" * MAX_HELD),
        (Loud("loud"), "loud"),
        (ValueError("bad"), "bad"),
        (ValueError("bad", 1), "('bad', 1)"),
        (ValueError(Touchy()), "<ValueError>"),
        (TouchyError("x"), "<TouchyError>"),
        (Touchy(), "<Touchy>"),
    ],
)
def test_a_value_shows_what_can_be_shown(value: object, shown: str) -> None:
    assert str(frozen(value)) == shown


def test_nobodys_code_is_run() -> None:
    one = Touchy()
    message = message_of("%s and %r of %s", frozen_args((one, [one], {"a": one})))
    assert message == "<Touchy> and [<Touchy>] of {'a': <Touchy>}"
    assert Touchy.touched == 0


def test_what_changes_later_does_not_change_what_is_held() -> None:
    items, pairs = [1], {"a": 1}
    held = frozen_args((items, pairs))
    items.append(2)
    pairs["a"] = 2
    assert held == ([1], {"a": 1})


def test_a_single_mapping_still_fills_named_places() -> None:
    assert message_of("%(a)d of %(b)s", frozen_args({"a": 1, "b": "x"})) == "1 of x"


def test_many_attributes_are_cut() -> None:
    assert len(frozen_pairs({f"k{number}": number for number in range(100)})) == MAX_ITEMS


PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=50) | st.binary(max_size=50)


@given(st.lists(PLAIN, max_size=6))
def test_plain_arguments_render_as_ever(args: list[object]) -> None:
    msg = " ".join(["%s"] * len(args))
    assert message_of(msg, frozen_args(tuple(args))) == message_of(msg, tuple(args))
