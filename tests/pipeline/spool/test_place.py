"""Where a service's spool is when no setting says so."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelweir.pipeline.spool import place
from otelweir.pipeline.spool.place import default_folder, default_root

STATE = {"XDG_STATE_HOME": "/state"}


class TestRoot:
    def test_is_the_state_folder_of_xdg(self) -> None:
        assert default_root(STATE) == Path("/state/otelweir")

    def test_is_below_the_home_otherwise(self) -> None:
        assert default_root({"HOME": "/home/shop"}) == Path("/home/shop/.local/state/otelweir")

    def test_a_relative_path_does_not_count(self) -> None:
        """As the XDG specification says; it would be another folder for every working directory."""
        environ = {"HOME": "/home/shop", "XDG_STATE_HOME": "state"}
        assert default_root(environ) == Path("/home/shop/.local/state/otelweir")

    def test_is_always_absolute(self) -> None:
        for environ in ({}, {"HOME": ""}, {"HOME": "here"}):
            assert default_root(environ).is_absolute()


class TestFolder:
    @pytest.mark.parametrize("name", ["cart", "shop-cart", "shop.cart_2", "Cart"])
    def test_is_named_after_the_service(self, name: str) -> None:
        assert default_folder(name, STATE) == Path("/state/otelweir") / name

    def test_letters_that_cannot_be_are_replaced_and_a_hash_follows(self) -> None:
        first, second = (default_folder(name, STATE).name for name in ("shop/cart", "shop:cart"))
        assert re.fullmatch(r"shop_cart-[0-9a-f]{8}", first)
        assert re.fullmatch(r"shop_cart-[0-9a-f]{8}", second)
        assert first != second

    @pytest.mark.parametrize("name", ["", ".", "..", "-rf", ".hidden", "aside", "CON", "nul.txt", "17-0123abcd", "a."])
    def test_no_name_means_something_else(self, name: str) -> None:
        folder = default_folder(name, STATE)
        assert folder.name != name
        assert folder.name[0].isalnum()
        assert not place.PROCESS.fullmatch(folder.name)

    @given(st.text(st.characters(), max_size=300))
    def test_every_name_is_a_file_name(self, name: str) -> None:
        folder = default_folder(name, STATE)
        assert folder.parent == Path("/state/otelweir")
        assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}", folder.name)

    @given(st.text(max_size=30), st.text(max_size=30))
    def test_two_services_share_no_folder(self, one: str, other: str) -> None:
        assert (default_folder(one, STATE) == default_folder(other, STATE)) == (one == other)


def test_the_examples_are_true() -> None:
    assert doctest.testmod(place).failed == 0
