"""Messages: in the form that backends read, and within their limit."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelweir.pipeline.capture.genai.content import BOUNDED, INPUT, OUTPUT, tidy

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=30,
)


def text(content: str) -> dict[str, str]:
    return {"type": "text", "content": content}


class TestForm:
    def test_what_is_in_form_stays_to_the_byte(self) -> None:
        said = '[{"role":"assistant", "parts":[{"type":"text","content":"hi"}], "finish_reason":"stop"}]'
        assert tidy(OUTPUT, said, 1000) is said

    def test_messages_get_what_backends_look_for(self) -> None:
        said = [{"role": "assistant", "content": "hi", "tool_calls": [{"id": "1", "function": {"name": "f"}}]}, "bye"]
        call = {"type": "tool_call", "id": "1", "name": "f", "arguments": None}
        assert json.loads(tidy(OUTPUT, json.dumps(said), 1000, ["length"])) == [
            {"role": "assistant", "parts": [text("hi"), call], "finish_reason": "length"},
            {"role": "assistant", "parts": [text("bye")], "finish_reason": "stop"},
        ]
        asked = [{"role": "user", "content": [{"type": "text", "text": "look"}, {"type": "image", "url": "x"}]}]
        assert json.loads(tidy(INPUT, json.dumps(asked), 1000)) == [
            {"role": "user", "parts": [text("look"), {"type": "image", "url": "x"}]}
        ]

    def test_half_a_character_does_no_harm(self) -> None:
        tidied = tidy(INPUT, json.dumps([{"role": "user", "content": "\ud83dx" + " x" * 250}]), 300)
        assert json.loads(tidied)[0]["parts"][0]["content"].startswith("\ud83dx")

    def test_what_is_no_json_passes(self) -> None:
        assert tidy(INPUT, "hello", 100) == "hello"


class TestTheLimit:
    @given(st.sampled_from(BOUNDED), JSON, st.integers(256, 2000))
    def test_holds_and_leaves_json(self, name: str, value: Any, limit: int) -> None:
        tidied = tidy(name, json.dumps(value), limit)
        assert len(tidied.encode()) <= limit
        json.loads(tidied)

    @pytest.mark.parametrize("size", [10_000, 1_000_000])
    def test_cuts_the_long_texts_and_says_so(self, size: int) -> None:
        said = [{"role": "user", "parts": [text("short"), text("é" * size)]}]
        tidied = json.loads(tidy(INPUT, json.dumps(said), 4000))
        short, long = tidied[0]["parts"]
        assert short == text("short")
        assert long["content"].endswith(" more characters)")
        assert long["content"].startswith("é" * 500)

    @given(
        st.integers(0, 400), st.sampled_from(["sk-proj-0482AbCdEfGhIjKlMnOpQrSt", "https://u:hunter2hunter2@shop/x"])
    )
    def test_leaves_no_half_of_a_key(self, before: int, secret: str) -> None:
        """Redaction comes later, and may not know half a key as one."""
        said = [{"role": "user", "parts": [text("w " * before + secret + " w" * 400)]}]
        tidied = tidy(INPUT, json.dumps(said), 500)
        assert len(tidied) <= 500
        assert secret in tidied or secret[:4] not in tidied

    def test_of_many_messages_the_first_and_the_last_stay(self) -> None:
        said = [{"role": "user", "parts": [text(f"message {at}")]} for at in range(1000)]
        tidied = json.loads(tidy(INPUT, json.dumps(said), 2000))
        assert tidied[0] == said[0]
        assert tidied[-1] == said[-1]
        assert any("more)" in json.dumps(message, ensure_ascii=False) for message in tidied)
        assert all("parts" in message for message in tidied)

    def test_holds_for_what_is_too_large_to_be_read(self) -> None:
        assert len(tidy(INPUT, "x" * (17 * 2**20), 1000)) <= 1000
