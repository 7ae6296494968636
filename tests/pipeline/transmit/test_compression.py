"""Compressed is what becomes smaller by it, and what comes back is unpacked within bounds."""

from __future__ import annotations

import gzip
import random
import sys
import zlib
from importlib import import_module

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelweir.pipeline.transmit import compression
from otelweir.pipeline.transmit.compression import Compression, compressed, decompressed, zstd_is_installed

TEXT = b"the order was placed; " * 200


class TestCompressed:
    def test_gzip_and_deflate(self) -> None:
        small, encoding = compressed(TEXT, "gzip")
        assert (gzip.decompress(small), encoding) == (TEXT, "gzip")
        small, encoding = compressed(TEXT, "deflate")
        assert (zlib.decompress(small), encoding) == (TEXT, "deflate")

    def test_none_is_none(self) -> None:
        assert compressed(TEXT, "none") == (TEXT, None)

    @pytest.mark.parametrize("compression", ["gzip", "deflate", "zstd"])
    def test_a_small_body_goes_as_it_is(self, compression: Compression) -> None:
        assert compressed(TEXT[:1023], compression) == (TEXT[:1023], None)

    def test_a_body_that_hardly_shrinks_goes_as_it_is(self) -> None:
        noise = random.Random(1).randbytes(4000)
        assert compressed(noise, "gzip") == (noise, None)
        # Of this, about a tenth can be saved.
        assert compressed(noise + b"x" * 450, "gzip")[1] is None
        assert compressed(noise + b"x" * 2000, "gzip")[1] == "gzip"

    def test_the_same_body_gives_the_same_bytes(self) -> None:
        assert compressed(TEXT, "gzip") == compressed(TEXT, "gzip")

    def test_zstd_without_its_library_is_gzip(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for library in ("compression.zstd", "zstandard"):
            monkeypatch.setitem(sys.modules, library, None)
        compression._zstd.cache_clear()
        try:
            assert compressed(TEXT, "zstd")[1] == "gzip"
        finally:
            compression._zstd.cache_clear()

    @pytest.mark.skipif(not zstd_is_installed(), reason="zstandard is not installed: pip install 'otelweir[zstd]'")
    def test_zstd(self) -> None:
        small, encoding = compressed(TEXT, "zstd")
        assert encoding == "zstd"
        assert import_module("zstandard").ZstdDecompressor().decompress(small, len(TEXT)) == TEXT


class TestDecompressed:
    def test_no_more_is_decoded_than_is_wanted(self) -> None:
        bomb = gzip.compress(bytes(50_000_000))
        assert decompressed(bomb, "gzip", 1000) == bytes(1000)

    def test_what_is_cut_short_is_decoded_as_far_as_it_goes(self) -> None:
        noise = random.Random(1).randbytes(4000)
        assert noise.startswith(decompressed(gzip.compress(noise)[:2000], "gzip", 10_000)[:100])

    @given(
        st.binary(), st.text() | st.sampled_from(["gzip", "deflate", "br", "identity", " GZIP "]), st.integers(0, 99)
    )
    def test_nothing_breaks_it(self, body: bytes, encoding: str, most: int) -> None:
        assert len(decompressed(body, encoding, most)) <= max(1, most)
