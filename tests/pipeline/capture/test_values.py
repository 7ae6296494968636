from __future__ import annotations

import datetime
import decimal
import enum
import uuid
from collections import OrderedDict, UserDict, namedtuple
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry._logs import LogRecord
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk.resources import Resource

from otelweir.pipeline.capture import quiet
from otelweir.pipeline.capture.values import (
    MAX_DEPTH,
    MAX_ITEMS,
    MAX_TEXT,
    any_value,
    attributes_of,
    beginning,
    clean,
    message_of,
    shortened,
)
from otelweir.signals import AnyValue


class Color(enum.Enum):
    RED = "red"
    NESTED = ("a", 1)


class Level(enum.IntEnum):
    HIGH = 3


class Hostile:
    """Fails wherever it is touched."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)

    def __str__(self) -> str:
        raise ValueError("no text")

    __repr__ = __str__

    def __eq__(self, other: object) -> bool:
        raise TypeError("no equality")

    def __hash__(self) -> int:
        return 1

    def __bool__(self) -> bool:
        raise TypeError("no truth")


class Mute:
    def __str__(self) -> str:
        raise ValueError("no text")


class HostileDict(dict[Any, Any]):
    def items(self) -> Any:
        raise KeyError("items")


class NumpyFloat(float):
    """As numpy's: a float with a mind of its own."""

    def __float__(self) -> float:
        raise TypeError

    def __str__(self) -> str:
        return "np.float64"


class LyingStr(str):
    def __str__(self) -> str:
        return 5  # type: ignore[return-value]  # noqa: PLE0307


class LyingInt(int):
    def __lt__(self, other: object) -> bool:
        raise TypeError

    __le__ = __ge__ = __gt__ = __lt__


class Endless(UserDict[Any, Any]):
    def items(self) -> Any:
        def forever() -> Iterator[tuple[int, int]]:
            n = 0
            while True:
                yield n, n
                n += 1

        return forever()

    def __len__(self) -> int:
        return 10**9


Point = namedtuple("Point", "x y")


class TestPlainValues:
    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            ("text", "text"),
            (1, 1),
            (True, True),
            (1.5, 1.5),
            (None, None),
            (b"\x00\xff", b"\x00\xff"),
            (bytearray(b"x"), b"x"),
            (2**63 - 1, 2**63 - 1),
            (-(2**63), -(2**63)),
            (2**63, str(2**63)),
            (decimal.Decimal("1.10"), "1.10"),
            (datetime.datetime(2026, 1, 2, 3, 4), "2026-01-02 03:04:00"),
            (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
            (Color.RED, "red"),
            (Color.NESTED, ["a", 1]),
            (Level.HIGH, 3),
            (NumpyFloat(2.5), 2.5),
            (LyingStr("sub"), "sub"),
            (LyingInt(7), 7),
            (Point(1, "a"), [1, "a"]),
            ({"a": [1, {"b": (2, None)}]}, {"a": [1, {"b": [2, None]}]}),
            (OrderedDict(a=1), {"a": 1}),
            ({1: "a", None: 2, ("t",): 3}, {"1": "a", "None": 2, "('t',)": 3}),
            ({"": 1, "a": 2}, {"a": 2}),
            (frozenset({1}), [1]),
            (ValueError("wrong"), "wrong"),
            (str, "<class 'str'>"),
            ("\ud800x", "\\ud800x"),
            ("nul\x00", "nul\x00"),
        ],
        ids=repr,
    )
    def test_become_otlp_values(self, value: object, expected: object) -> None:
        found = any_value(value)
        assert found == expected
        assert type(found) is type(expected)


class TestHostileValues:
    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            (Hostile(), "<Hostile>"),
            ([Hostile(), 1], ["<Hostile>", 1]),
            ({"k": Hostile()}, {"k": "<Hostile>"}),
            (HostileDict(a=1), "<HostileDict>"),
            ({"fine": 1, "not": HostileDict(a=1)}, {"fine": 1, "not": "<HostileDict>"}),
        ],
        ids=["itself", "in a list", "in a dict", "a dict", "a dict in a dict"],
    )
    def test_become_the_name_of_their_type(self, value: object, expected: object) -> None:
        """Only what is hostile is lost; the rest of a container stays."""
        assert any_value(value) == expected

    def test_a_huge_integer_does_not_take_for_ever(self) -> None:
        """Beyond some thousand digits Python refuses to write decimals."""
        found = any_value(1 << 100_000)
        assert isinstance(found, str)
        assert found.startswith("0x1000")

    def test_a_cycle_ends(self) -> None:
        value: dict[str, Any] = {"a": 1}
        value["self"] = value
        assert any_value(value) == {"a": 1, "self": "…"}

    def test_depth_is_bounded(self) -> None:
        value: Any = "deep"
        for _ in range(10_000):
            value = [value]
        found, depth = any_value(value), 0
        while isinstance(found, list):
            found, depth = found[0], depth + 1
        assert (found, depth) == ("…", MAX_DEPTH)

    def test_items_are_bounded_and_counted(self) -> None:
        found = any_value(list(range(5000)))
        assert isinstance(found, list)
        assert (len(found), found[-1]) == (MAX_ITEMS + 1, "… 4000 more")
        assert len(str(any_value(Endless()))) < 100_000

    def test_text_is_bounded_over_all_levels(self) -> None:
        assert len(str(any_value(["x" * MAX_TEXT] * 500))) < 1.3 * MAX_TEXT
        assert len(str(any_value({"y" * 1000 + str(n): "x" * 1000 for n in range(900)}))) < 1.3 * MAX_TEXT
        assert len(clean("x" * 10_000_000)) < MAX_TEXT + 100

    def test_a_value_that_is_being_rendered_makes_its_thread_quiet(self) -> None:
        """What it logs would not have been logged without us."""

        class Looks:
            def __str__(self) -> str:
                return str(bool(quiet.rendering))

        assert any_value(Looks()) == "True"
        assert message_of("%s", (Looks(),)) == "True"
        assert message_of(Looks(), ()) == "True"
        assert quiet.rendering == set()


class TestMessages:
    @pytest.mark.parametrize(
        ("msg", "args", "expected"),
        [
            ("plain %s", (), "plain %s"),
            ("a %s", (1,), "a 1"),
            ("a %(k)s", ({"k": 2},), "a 2"),
            ("a %(k)s", {"k": 2}, "a 2"),
            ("a %s", ({},), "a {}"),
            ("a %s", ([1],), "a [1]"),
            ("a %d", ("x",), "a %d"),
            ("a", (1,), "a"),
            ("a %s", (Hostile(),), "a %s"),
            (5, (), "5"),
            (None, (), "None"),
            ({"k": [1]}, (), {"k": [1]}),
            (["a", 1], (), ["a", 1]),
            (Hostile(), (), "<Hostile>"),
            ("\ud800 %s", ("\udfff",), "\\ud800 \\udfff"),
        ],
        ids=lambda value: "hostile" if "Hostile" in str(any_value(value)) else repr(value),
    )
    def test_are_rendered_as_logging_renders_them(self, msg: object, args: Any, expected: object) -> None:
        assert message_of(msg, args) == expected


TEXT = st.text(st.characters(exclude_categories=[]), max_size=50)  # surrogates and control characters included
SCALARS = st.one_of(
    TEXT,
    st.integers(),
    st.floats(),
    st.booleans(),
    st.none(),
    st.binary(max_size=20),
    st.decimals(),
    st.datetimes(),
    st.uuids(),
    st.sampled_from([Color.RED, Color.NESTED, Level.HIGH]),
    st.builds(Mute),
    st.builds(object),
    st.complex_numbers(),
    st.integers(min_value=10**300, max_value=10**305),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.tuples(inner, inner),
        st.dictionaries(st.one_of(TEXT, st.integers(), st.none()), inner, max_size=5),
    ),
    max_leaves=30,
)


def _encode(value: AnyValue, name: str = "k") -> None:
    record = LogRecord(body=value, attributes={name: value})
    encode_logs([ReadableLogRecord(record, Resource.get_empty())]).SerializeToString()


@given(VALUES)
def test_every_value_can_be_encoded(value: object) -> None:
    """By the official encoder, and so by any other."""
    _encode(any_value(value))


@given(st.dictionaries(st.one_of(TEXT, st.integers(), st.tuples(TEXT)), VALUES, max_size=6))
def test_every_attribute_can_be_encoded(pairs: dict[Any, object]) -> None:
    for name, value in attributes_of(pairs).items():
        assert name
        name.encode()
        _encode(value, name)


@given(st.one_of(TEXT, VALUES), st.one_of(st.just(()), st.tuples(VALUES), st.tuples(VALUES, VALUES)))
def test_every_message_can_be_encoded(msg: object, args: tuple[object, ...]) -> None:
    _encode(message_of(msg, args))


@given(VALUES, st.integers(0, 30))
def test_no_text_is_longer_than_the_limit(value: object, length: int) -> None:
    def texts(found: Any) -> Iterator[str]:
        match found:
            case str() | bytes():
                yield str(found, "latin1") if isinstance(found, bytes) else found
            case list():
                for item in found:
                    yield from texts(item)
            case dict():
                for item in found.values():
                    yield from texts(item)

    assert all(len(text) <= length for text in texts(shortened(any_value(value), length)))


class TestWhatIsTooLong:
    @pytest.mark.parametrize("before", range(40, 60))
    def test_is_cut_between_words(self, before: int) -> None:
        """Redaction comes later, and may not know half a key as one."""
        key = "sk-proj-0482AbCdEfGhIjKlMnOpQrSt"
        found = beginning("w " * before + key + " w" * 100, 100)
        assert len(found) <= 100 + len("… (999 more characters)")
        assert key in found or key[:2] not in found
