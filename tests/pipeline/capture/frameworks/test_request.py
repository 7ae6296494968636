"""What a request's logs carry, and what is known about its user without asking for it."""

from __future__ import annotations

from collections import UserDict
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelweir.pipeline.capture.frameworks.request import RequestContext, request_id
from otelweir.pipeline.capture.frameworks.user import user_id


def context_of(**options: Any) -> RequestContext:
    return RequestContext("GET", "r-1", **{"route": lambda: None, "user": lambda: None, **options})


class TestARequestId:
    @pytest.mark.parametrize("given_id", ["7f3a-22", "a" * 128, "host/7:1@x=+~._", str(UUID(int=3))])
    def test_that_is_short_and_plain_is_taken(self, given_id: str) -> None:
        assert request_id(given_id) == given_id

    @pytest.mark.parametrize("given_id", [None, "", "a" * 129, "a b", "a\nb", "ä", "<script>", "a;b", 'a"', "a\x00"])
    def test_that_is_not_is_replaced(self, given_id: str | None) -> None:
        """It goes into logs and into a response header."""
        found = request_id(given_id)
        assert found != given_id
        assert len(found) == 32

    @given(st.text(max_size=300))
    def test_is_always_fit_for_a_header(self, given_id: str) -> None:
        found = request_id(given_id)
        assert 1 <= len(found) <= 128
        assert found.isascii()
        assert found.isprintable()


class TestTheContext:
    def test_has_method_and_id_from_the_start(self) -> None:
        assert context_of()() == {"http.request.method": "GET", "weir.request.id": "r-1"}

    def test_learns_the_route_and_keeps_it(self) -> None:
        """A router cleans up behind it; later records still belong to the route."""
        routes = iter([None, "/a/{b}", None])
        source = context_of(route=lambda: next(routes))
        assert [source().get("http.route") for _ in range(3)] == [None, "/a/{b}", "/a/{b}"]

    def test_learns_the_user_and_keeps_it(self) -> None:
        users = iter([None, {"id": 7}, None])
        source = context_of(user=lambda: next(users))
        assert [source().get("user.id") for _ in range(3)] == [None, "7", "7"]

    def test_does_not_repeat_a_method_that_a_client_made_up(self) -> None:
        """As semantic conventions have it: unknown methods would make an unbounded set."""
        source = RequestContext("BREW", None, route=lambda: None, user=lambda: None)
        assert source()["http.request.method"] == "_OTHER"


class Held:
    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)


class Expired:
    """Like a row of an object-relational mapper whose values must be loaded again."""

    @property
    def id(self) -> int:
        raise AssertionError("loaded")


@dataclass(slots=True)
class Slotted:
    id: int


class TestAUserId:
    @pytest.mark.parametrize(
        ("user", "expected"),
        [
            ("ann", "ann"),
            (7, "7"),
            (UUID(int=3), str(UUID(int=3))),
            ({"sub": "auth0|1"}, "auth0|1"),
            (UserDict(id=3), "3"),
            (Held(id=7, name="ann"), "7"),
            (Held(username="ann"), "ann"),
            (Slotted(7), "7"),
        ],
    )
    def test_is_what_the_object_holds(self, user: object, expected: str) -> None:
        assert user_id(user) == expected

    @pytest.mark.parametrize("user", [None, "", True, {}, {"id": None}, Held(), Held(id=None), object(), [1], b"x"])
    def test_is_unknown_where_it_holds_none(self, user: object) -> None:
        assert user_id(user) is None

    def test_is_never_loaded(self) -> None:
        """A log call must not lead to a query."""
        assert user_id(Expired()) is None

    def test_of_a_slot_never_filled_is_unknown(self) -> None:
        assert user_id(Slotted.__new__(Slotted)) is None

    def test_is_bounded(self) -> None:
        assert len(user_id("x" * 10_000) or "") == 128
