"""The results of batch interfaces, as the attributes that a call would have had.

OpenAI's are lines of a file (`client.files.content(batch.output_file_id)`), each a JSON object with `custom_id`, and
`response`, whose `body` is what the call would have answered, or `error`.

Anthropic's (`client.messages.batches.results`) have `custom_id` and `result`, whose `type` is `succeeded` (then
`message` is the answer), `errored`, `canceled` or `expired`.

Sources: https://platform.openai.com/docs/guides/batch, https://docs.anthropic.com/en/api/retrieving-message-batch-results
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from otelweir.pipeline.capture.genai.usage import (
    ANTHROPIC_TIER,
    CACHE_WRITE,
    CACHE_WRITE_1H,
    EMBEDDINGS,
    ERROR,
    FINISH,
    OPENAI_TIER,
    OPERATION,
    PROVIDER,
    RESPONSE_ID,
    RESPONSE_MODEL,
)

CUSTOM_ID: Final = "weir.genai.batch.custom_id"
"""What the application called the request."""

_MAX_ID: Final = 256


@dataclass(frozen=True, slots=True)
class Answer:
    """One result.

    Attributes:
        attributes: As the span of a call has them.
        failed: Why there is no answer; empty where there is one.
    """

    attributes: Mapping[str, Any]
    failed: str = ""

    @property
    def name(self) -> str:
        """What its span is called."""
        operation, model = self.attributes.get(OPERATION, "chat"), self.attributes.get(RESPONSE_MODEL)
        return f"{operation} {model}" if model else str(operation)


def entries_of(text: str | bytes) -> Iterator[object]:
    """The lines of a file of results; what is no JSON is left as it is."""
    for line in text.splitlines():
        if line.strip():
            yield plain(line)


def plain(entry: object) -> object:
    """An entry as dictionaries: JSON is read, and models of a client are asked."""
    if isinstance(entry, (str, bytes)):
        try:
            return json.loads(entry)
        except (ValueError, RecursionError):
            return entry
    dumped = getattr(entry, "model_dump", None)
    return dumped() if callable(dumped) else entry


def answer_of(entry: object) -> Answer | None:
    """What an entry tells of its call; None where it is no result of OpenAI's or Anthropic's."""
    found = plain(entry)
    if not isinstance(found, dict):
        return None
    if isinstance(result := found.get("result"), dict):
        answer = _anthropic(result)
    elif "response" in found or "error" in found:
        answer = _openai(found)
    else:
        return None
    if not isinstance(found.get("custom_id"), str):
        return answer
    return Answer({**answer.attributes, CUSTOM_ID: found["custom_id"][:_MAX_ID]}, answer.failed)


def _openai(entry: dict[str, Any]) -> Answer:
    response = _mapping(entry.get("response"))
    body = _mapping(response.get("body"))
    about: dict[str, Any] = {PROVIDER: "openai", OPERATION: "chat", OPENAI_TIER: "batch"}
    error = _mapping(entry.get("error") or body.get("error"))
    status = response.get("status_code")
    if error or (type(status) is int and status >= 400):
        kind = str(error.get("code") or error.get("type") or status)[:_MAX_ID]
        return Answer({**about, ERROR: kind}, kind)
    if body.get("object") == "list":
        about[OPERATION] = EMBEDDINGS
    usage = _mapping(body.get("usage"))
    # The words of chat completions, then those of responses.
    inside = _mapping(usage.get("prompt_tokens_details") or usage.get("input_tokens_details"))
    outside = _mapping(usage.get("completion_tokens_details") or usage.get("output_tokens_details"))
    choices = body.get("choices")
    finish = [choice.get("finish_reason") for choice in choices if isinstance(choice, dict)] if choices else []
    return Answer(
        _known(
            {
                **about,
                **_head(body),
                FINISH: [str(reason) for reason in finish if reason] or None,
                "gen_ai.usage.input_tokens": _first(usage, "prompt_tokens", "input_tokens"),
                "gen_ai.usage.output_tokens": _first(usage, "completion_tokens", "output_tokens"),
                "gen_ai.usage.cache_read.input_tokens": inside.get("cached_tokens"),
                "gen_ai.usage.audio.input_tokens": inside.get("audio_tokens"),
                "gen_ai.usage.reasoning.output_tokens": outside.get("reasoning_tokens"),
                "gen_ai.usage.audio.output_tokens": outside.get("audio_tokens"),
            }
        )
    )


def _anthropic(result: dict[str, Any]) -> Answer:
    about: dict[str, Any] = {PROVIDER: "anthropic", OPERATION: "chat", ANTHROPIC_TIER: "batch"}
    if result.get("type") != "succeeded":
        # The error is wrapped in an answer of its own.
        error = _mapping(_mapping(result.get("error")).get("error"))
        kind = str(error.get("type") or result.get("type"))[:_MAX_ID]
        return Answer({**about, ERROR: kind}, kind)
    message = _mapping(result.get("message"))
    usage = _mapping(message.get("usage"))
    read, write = _first(usage, "cache_read_input_tokens"), _first(usage, "cache_creation_input_tokens")
    fresh = _first(usage, "input_tokens")
    return Answer(
        _known(
            {
                **about,
                **_head(message),
                FINISH: [str(message["stop_reason"])] if message.get("stop_reason") else None,
                # By convention cached tokens are part of the input; Anthropic counts them beside it.
                "gen_ai.usage.input_tokens": None if fresh is None else fresh + (read or 0) + (write or 0),
                "gen_ai.usage.output_tokens": _first(usage, "output_tokens"),
                "gen_ai.usage.cache_read.input_tokens": read,
                CACHE_WRITE: write,
                CACHE_WRITE_1H: _mapping(usage.get("cache_creation")).get("ephemeral_1h_input_tokens"),
            }
        )
    )


def _head(body: Mapping[str, Any]) -> dict[str, Any]:
    return {
        RESPONSE_ID: body["id"] if isinstance(body.get("id"), str) else None,
        RESPONSE_MODEL: body["model"] if isinstance(body.get("model"), str) else None,
    }


def _first(usage: Mapping[str, Any], *names: str) -> int | None:
    return next((usage[name] for name in names if type(usage.get(name)) is int), None)


def _known(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Without what is not said; zero is, where tokens are parts of others."""
    return {name: value for name, value in attributes.items() if value is not None}


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
