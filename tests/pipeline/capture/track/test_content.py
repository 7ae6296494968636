"""Input and output as JSON: of anything, bounded, and without running anybody's code."""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import hashlib
import io
import json
import pathlib
import sys
import tempfile
import threading
import types
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

import attrs
import numpy
import pandas  # type: ignore[import-untyped]
import pydantic
import pytest
from fastapi import FastAPI
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.datastructures import Headers, UploadFile
from starlette.requests import Request

from otelweir.pipeline.capture.track.content import Parts, content_of, mime_type
from otelweir.pipeline.capture.track.hidden import is_hidden
from otelweir.pipeline.capture.track.limits import MAX_BYTES
from otelweir.testing import Clock


def shown(value: object) -> Any:
    """What its JSON says."""
    return json.loads(content_of(value, clock=lambda: 0.0).text)


class Model(pydantic.BaseModel):
    model_config = {"extra": "allow"}
    a: int
    key: pydantic.SecretStr
    quiet: str = pydantic.Field("q", repr=False)
    inner: Model | None = None


@dataclasses.dataclass
class Data:
    x: int
    password: str = "pw"
    quiet: int = dataclasses.field(default=3, repr=False)


@dataclasses.dataclass(slots=True)
class Slots:
    x: int


@attrs.define
class Attrs:
    x: int
    quiet: int = attrs.field(default=3, repr=False)


class Plain:
    def __init__(self) -> None:
        self.x = 1
        self._y = 2


class Colour(enum.Enum):
    RED = "red"


Point = collections.namedtuple("Point", "x y")
BYTES = b"\x89PNG\r\n\x1a\n...."


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("text", "text"),
        (None, None),
        ({"a": [1, 2.5, True, (1,)]}, {"a": [1, 2.5, True, [1]]}),
        (
            Model.model_validate({"a": 1, "key": "s", "more": [1]}),
            {"a": 1, "key": "<SecretStr>", "inner": None, "more": [1]},
        ),
        (Data(1), {"x": 1, "password": "***"}),
        (Slots(1), {"x": 1}),
        (Attrs(1), {"x": 1}),
        (Plain(), {"x": 1}),
        (types.SimpleNamespace(a=Plain()), {"a": {"x": 1}}),
        (Colour.RED, "red"),
        (Point(1, 2), {"x": 1, "y": 2}),
        (collections.deque([1]), [1]),
        (types.MappingProxyType({"a": 1}), {"a": 1}),
        ({1: 2, (1, "b"): 3}, {"1": 2, '[1, "b"]': 3}),
        (datetime.datetime(2026, 1, 2, 3, 4), "2026-01-02T03:04:00"),
        (decimal.Decimal("1.50"), "1.50"),
        (fractions.Fraction(1, 3), "1/3"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (pathlib.PurePosixPath("/a/b"), "/a/b"),
        (ValueError("x", 1), {"type": "ValueError", "args": ["x", 1]}),
        ([float("nan"), float("-inf")], ["nan", "-inf"]),
        (2**70, str(2**70)),
        (len, "<builtin_function_or_method len>"),
        (Plain, "<class Plain>"),
        (iter([]), "<list_iterator>"),
        ("\ud800", "\ud800"),
        (numpy.float64(1.5), 1.5),
        (numpy.arange(3), {"type": "ndarray", "shape": [3], "dtype": "int64", "values": [0, 1, 2]}),
        (numpy.zeros((100, 2)), {"type": "ndarray", "shape": [100, 2], "dtype": "float64"}),
        (pandas.Series([1, 2]), {"type": "Series", "shape": [2], "dtype": "int64", "head": [1, 2]}),
        (
            pandas.DataFrame({"a": [1], "password": ["p"]}),
            {"type": "DataFrame", "shape": [1, 2], "columns": ["a", "password"], "head": [{"a": 1, "password": "***"}]},
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_values(value: object, expected: object) -> None:
    assert shown(value) == expected


class TestHostileValues:
    def test_run_no_code_of_theirs(self) -> None:
        class Proxy:
            """Whoever asks it anything waits for ever."""

            def _never(self, *_: object) -> Any:
                raise AssertionError("was asked")

            __repr__ = __str__ = __getattr__ = __getattribute__ = __iter__ = __len__ = __eq__ = __hash__ = _never
            __class__ = property(_never)
            __bool__ = __dir__ = __format__ = __index__ = __reduce__ = _never
            value = property(_never)

        class Text(str):
            __str__ = __repr__ = __len__ = Proxy._never

        class Number(int):
            __str__ = __repr__ = __index__ = __int__ = Proxy._never

        class Numbers(list[int]):
            __iter__ = __len__ = __getitem__ = Proxy._never

        class Pairs(dict[str, int]):
            __iter__ = __len__ = items = keys = Proxy._never

        class Content(bytes):
            __len__ = __getitem__ = __iter__ = Proxy._never

        class Meta(type):
            def __getattribute__(cls, name: str) -> Any:
                raise AssertionError("was asked")

        class Made(metaclass=Meta):
            def __init__(self) -> None:
                object.__setattr__(self, "x", 1)

        assert shown(Content(b"abc"))["attachment"]["size"] == 3
        assert shown(Made()) == {"x": 1}
        assert shown([Proxy(), {"a": Proxy()}]) == ["<Proxy>", {"a": "<Proxy>"}]
        assert shown([Text("t"), Number(3), Numbers([1]), Pairs(a=1)]) == ["t", 3, [1], {"a": 1}]

    def test_that_raise_leave_the_others(self) -> None:
        class Raises(Mapping[str, int]):
            def __getitem__(self, key: str) -> int:
                raise KeyError(key)

            def __len__(self) -> int:
                raise OSError

            def __iter__(self) -> Iterator[str]:
                raise OSError

        assert shown([1, Raises(), 2]) == [1, "<Raises>", 2]

    def test_that_never_end_are_left_in_time(self) -> None:
        class Endless(Mapping[str, int]):
            def __getitem__(self, key: str) -> int:
                clock.advance(0.01)
                return 1

            def __len__(self) -> int:
                return 2**40

            def __iter__(self) -> Iterator[str]:
                number = 0
                while True:
                    number += 1
                    yield str(number)

        clock = Clock()
        found = content_of(Endless(), clock=clock)
        assert found.cut
        assert clock() < 0.1
        assert len(json.loads(found.text)) < 10

    def test_that_contain_themselves_end(self) -> None:
        circle: list[Any] = [1]
        circle.append(circle)
        plain = Plain()
        plain.x = plain  # type: ignore[assignment]
        assert shown(circle) == [1, "…"]
        assert shown(plain) == {"x": "…"}
        assert content_of(circle).cut


class TestHugeValues:
    @pytest.mark.parametrize(
        "value",
        [
            "x" * 10**6,
            "\x00" * 10**6,
            "é" * 10**6,
            ["x" * 100] * 10**5,
            {str(n): list(range(100)) for n in range(1000)},
            [[["y" * 5000] * 50] * 50] * 50,
            list(range(10**6)),
            10**4000,
            10**100_000,
        ],
        ids=["text", "escapes", "not ascii", "texts", "mapping", "deep", "numbers", "digits", "many digits"],
    )
    def test_are_cut_and_marked(self, value: object) -> None:
        found = content_of(value)
        assert len(found.text.encode()) <= MAX_BYTES
        json.loads(found.text)
        assert found.cut or isinstance(value, int)
        assert not found.cut or "…" in found.text

    def test_that_are_deep_are_cut(self) -> None:
        deep: list[Any] = []
        for _ in range(100_000):
            deep = [deep]
        assert content_of(deep).cut
        while deep:
            deep = deep[0]


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.dates() | st.uuids(),
    lambda inner: st.lists(inner, max_size=30) | st.dictionaries(st.text() | st.integers(), inner, max_size=30),
    max_leaves=60,
)


@settings(max_examples=50)
@given(values, st.integers(16, 4096))
def test_any_value_is_json_within_its_bytes(value: object, max_bytes: int) -> None:
    found = content_of(value, max_bytes)
    assert len(found.text.encode()) <= max(max_bytes, len('"…"'.encode()))
    json.loads(found.text)


plain_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.sampled_from("abcdef"), inner),
    max_leaves=20,
)  # fmt: skip


@settings(max_examples=50)
@given(plain_values.filter(lambda value: len(json.dumps(value)) < 10_000 and json.dumps(value).count("[") < 3))
def test_plain_values_come_back_as_they_were(value: object) -> None:
    found = content_of(value)
    assert found.cut or "data:" in found.text or json.loads(found.text) == value


class TestAttachments:
    def test_are_told_by_hash_size_and_type(self, tmp_path: pathlib.Path) -> None:
        path = tmp_path / "picture.bin"
        path.write_bytes(BYTES)
        told = {"sha256": hashlib.sha256(BYTES).hexdigest(), "size": len(BYTES), "mime_type": "image/png"}
        with path.open("rb") as file, path.open("wb+", buffering=0) as _:
            path.write_bytes(BYTES)
            file.seek(3)
            for value in (BYTES, bytearray(BYTES), memoryview(BYTES), io.BytesIO(BYTES)):
                assert shown({"a": value}) == {"a": {"attachment": told}}
            assert shown(file) == {"attachment": {**told, "name": "picture.bin"}}
            assert file.tell() == 3
        found = content_of([BYTES] * 2)
        assert [attachment.sha256 for attachment in found.attachments] == [told["sha256"]] * 2
        assert "PNG" not in found.text

    def test_that_cannot_be_read_have_no_hash(self, tmp_path: pathlib.Path) -> None:
        with (tmp_path / "page.html").open("w") as file:
            found = shown(file)["attachment"]
        assert found == {"size": 0, "mime_type": "text/html", "name": "page.html"}
        assert shown(file)["attachment"] == {"mime_type": "text/html", "name": "page.html"}
        assert "sha256" not in shown(bytes(5 * 2**20))["attachment"]
        assert shown(sys.stdin)

    def test_that_were_uploaded(self) -> None:
        for inner in (io.BytesIO(), tempfile.SpooledTemporaryFile()):  # noqa: SIM115
            inner.write(b"%PDF-1")
            found = shown(UploadFile(inner, filename="a.pdf"))  # type: ignore[arg-type]
            assert (found["filename"], found["file"]["attachment"]["mime_type"]) == ("a.pdf", "application/pdf")

    def test_in_a_text_are_found(self) -> None:
        assert shown(["data:image/gif;base64,aGVsbG8="]) == [
            {"attachment": {"size": 5, "mime_type": "image/gif", "sha256": hashlib.sha256(b"hello").hexdigest()}}
        ]
        assert shown("data: no base64") == "data: no base64"

    def test_have_their_type_by_their_first_bytes_or_their_name(self) -> None:
        assert mime_type(b"%PDF-1.7") == "application/pdf"
        assert mime_type(b"RIFF....WAVE") == "audio/wave"
        assert mime_type(b"", "a.json") == "application/json"
        assert mime_type(b"??", "a.unheard") == "application/octet-stream"


def test_tensors_are_told_without_being_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch is too large to be installed for tests; what is asked of a tensor is what its documentation has."""

    class Device:
        def __init__(self, kind: str) -> None:
            self.type = kind

        def __str__(self) -> str:
            return f"{self.type}:0"

    class Tensor:
        __module__ = "torch"

        def __init__(self, array: Any, device: str) -> None:
            self._array = array
            self.dtype, self.shape, self.device = array.dtype, array.shape, Device(device)

        def numel(self) -> int:
            return int(self._array.size)

        def detach(self) -> Tensor:
            assert self.device.type == "cpu", "it would have to be fetched"
            return self

        def tolist(self) -> Any:
            assert self.numel() <= 16, "it is too large to be shown"
            return self._array.tolist()

    torch = types.ModuleType("torch")
    torch.Tensor = Tensor  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch", torch)
    small, large = numpy.ones((1, 2), "float32"), numpy.ones((100, 100), "float32")
    told = {"type": "Tensor", "dtype": "float32", "device": "cpu:0"}
    assert [shown(Tensor(small, "cpu")), shown(Tensor(large, "cpu")), shown(Tensor(small, "cuda"))] == [
        {**told, "shape": [1, 2], "values": [[1.0, 1.0]]},
        {**told, "shape": [100, 100]},
        {**told, "shape": [1, 2], "device": "cuda:0"},
    ]


def test_what_leads_to_all_of_an_application_is_told_by_its_type() -> None:
    """A request has its application, and that its routes and settings."""
    request = Request({"type": "http", "app": FastAPI(), "headers": [(b"authorization", b"hush")]})
    assert shown({"request": request, "lock": threading.Lock(), "loop": asyncio.Event()}) == {
        "request": "<Request>", "lock": "<lock>", "loop": "<Event>",
    }  # fmt: skip
    assert shown(Headers({"authorization": "hush", "accept": "*/*"})) == {"authorization": "***", "accept": "*/*"}


def test_what_pandas_has_not_is_nothing() -> None:
    assert shown([pandas.NaT, pandas.NA, pandas.Timedelta(days=1)]) == [None, "<NA>", "1 day, 0:00:00"]
    assert shown(pandas.Index([1, 2]))["head"] == [1, 2]


class TestTheParts:
    def test_of_a_long_stream_are_bounded(self) -> None:
        parts = Parts(1000)
        for _ in range(10_000):
            parts.add("word ")
        assert (parts.count, parts.cut, parts.value()) == (10_000, True, "word " * 200)
        mixed = Parts(1000)
        for number in range(10_000):
            mixed.add({"n": number})
        assert mixed.cut
        assert len(mixed.value()) <= 1000  # type: ignore[arg-type]

    def test_go_to_the_reducer_as_they_are(self) -> None:
        one = object()
        parts = Parts(10, reduce=lambda found: found[0] is one)
        parts.add(one)
        assert parts.value() is True


@pytest.mark.parametrize(
    "name", ["password", "dbPassword", "API_KEY", "x-api-key", "clientSecret", "Set-Cookie", "token"]
)
def test_secret_names(name: str) -> None:
    assert is_hidden(name)


@pytest.mark.parametrize("name", ["max_tokens", "secretary", "author", "key", "passage", "tokenizer", "", "pinned"])
def test_names_that_are_none(name: str) -> None:
    assert not is_hidden(name)
