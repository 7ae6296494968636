"""The messages in the attributes of a call: never larger than allowed, and in the form that the convention gives them.

Backends read `parts` in every message and `finish_reason` in every output message, and at least one of them drops all
messages where one lacks them.

Source: https://github.com/open-telemetry/semantic-conventions-genai, the JSON schemas of messages.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from otelweir.pipeline.capture.values import beginning

INPUT: Final = "gen_ai.input.messages"
OUTPUT: Final = "gen_ai.output.messages"
BOUNDED: Final = (
    INPUT,
    OUTPUT,
    "gen_ai.system_instructions",
    "gen_ai.tool.definitions",
    "gen_ai.tool.call.arguments",
    "gen_ai.tool.call.result",
)
"""The attributes that hold content, as JSON."""

_TOO_LARGE_TO_READ: Final = 16 * 2**20
_LEAST: Final = 32
_MAX_DEPTH: Final = 32


def tidy(name: str, text: str, limit: int, finish: Sequence[str] = ()) -> str:
    """The content of an attribute, whole if it is in form and within the limit, else mended and cut.

    Args:
        name: The attribute.
        text: JSON, as a rule.
        limit: Bytes that it may take.
        finish: The reasons for which the outputs ended, where their messages do not say it.

    Returns:
        JSON again, where it was JSON: long texts in it end with how much was cut, and messages that found no place are
        counted in a message of their own.
    """
    # A character takes up to four bytes; only of what may be too long the bytes are counted.
    fits = len(text) * 4 <= limit or len(text.encode("utf-8", "replace")) <= limit
    if fits and (name not in (INPUT, OUTPUT) or _in_form(name, text)):
        return text
    if len(text) > _TOO_LARGE_TO_READ:
        return _cut(text, limit - _LEAST)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text if fits else _cut(text, max(0, limit - _LEAST) // 4)
    if name in (INPUT, OUTPUT) and isinstance(value, list):
        value = [
            _message(item, name == OUTPUT, finish[at] if at < len(finish) else "stop") for at, item in enumerate(value)
        ]
    return _within(value, limit)


def within(value: Any, limit: int) -> Any:
    """Content as an event has it, lists and mappings: itself where its JSON fits, else cut as by `tidy`."""
    if isinstance(value, str):
        return value if len(value) * 4 <= limit else _cut(value, max(0, limit - _LEAST) // 4)
    plain = json.loads(json.dumps(value, default=str))
    text = _within(plain, limit)
    return value if len(text) >= len(_dumped(plain)) else json.loads(text)


def _in_form(name: str, text: str) -> bool:
    """Whether each message seems to have what backends read, told without parsing."""
    roles = text.count('"role"')
    return text.count('"parts"') >= roles and (name != OUTPUT or text.count('"finish_reason"') >= roles)


def _message(item: object, output: bool, finish: str) -> object:
    if not isinstance(item, dict):
        item = {"role": "assistant" if output else "user", "content": item}
    message = dict(item)
    if not isinstance(message.get("parts"), list):
        message["parts"] = [*_parts(message.pop("content", None)), *_calls(message.pop("tool_calls", None))]
    message.setdefault("role", "assistant" if output else "user")
    if output and not isinstance(message.get("finish_reason"), str):
        message["finish_reason"] = finish
    return message


def _parts(content: object) -> list[object]:
    match content:
        case None | "":
            return []
        case str():
            return [{"type": "text", "content": content}]
        case list():
            return [part for item in content for part in _part(item)]
    return [{"type": "text", "content": json.dumps(content)}]


def _part(item: object) -> list[object]:
    match item:
        case {"type": "text", "text": str(text)}:
            return [{"type": "text", "content": text}]
        case {"type": str()}:
            return [item]
    return _parts(item if isinstance(item, str) else json.dumps(item))


def _calls(calls: object) -> list[object]:
    found: list[object] = []
    for call in calls if isinstance(calls, list) else []:
        function = call.get("function", call) if isinstance(call, dict) else {}
        if isinstance(function, dict):
            found.append(
                {
                    "type": "tool_call",
                    "id": call.get("id"),
                    "name": function.get("name", ""),
                    "arguments": function.get("arguments", function.get("args")),
                }
            )
    return found


def _within(value: Any, limit: int) -> str:
    text = _dumped(value)
    longest = limit
    while len(text.encode()) > limit and longest >= _LEAST:
        longest //= 2
        text = _dumped(_shortened(value, longest))
    if len(text.encode()) > limit:
        if isinstance(value, list) and len(value) > 2:
            return _fewer([_shortened(item, _LEAST) for item in value], limit)
        return _dumped(f"… ({len(_dumped(value))} characters)")
    return text


def _fewer(items: list[Any], limit: int) -> str:
    """The first and the last items, as many as there is room for."""
    kept = len(items)
    while kept > 1:
        kept //= 2
        left = len(items) - kept
        note = {
            "role": "system",
            "parts": [{"type": "text", "content": f"… ({left} more)"}],
            "finish_reason": "stop",
        }
        head = kept // 2
        text = _dumped([*items[:head], note, *items[len(items) - (kept - head) :]])
        if len(text.encode()) <= limit:
            return text
    return _dumped([])


def _shortened(value: Any, longest: int, depth: int = 0) -> Any:
    if isinstance(value, str):
        return _cut(value, longest)
    if depth >= _MAX_DEPTH:
        return "…"
    if isinstance(value, list):
        return [_shortened(item, longest, depth + 1) for item in value]
    if isinstance(value, dict):
        return {key: _shortened(item, longest, depth + 1) for key, item in value.items()}
    return value


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else beginning(text, longest)


def _dumped(value: object) -> str:
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # half a character, which JSON can escape and UTF-8 cannot write
        return json.dumps(value, separators=(",", ":"))
    return text
