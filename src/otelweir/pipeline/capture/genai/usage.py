"""The tokens of a call, as the attributes of its span say it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

OPERATION: Final = "gen_ai.operation.name"
PROVIDER: Final = "gen_ai.provider.name"
REQUEST_MODEL: Final = "gen_ai.request.model"
RESPONSE_MODEL: Final = "gen_ai.response.model"
RESPONSE_ID: Final = "gen_ai.response.id"

CALLS: Final = frozenset({"chat", "text_completion", "generate_content", "embeddings"})
"""The operations that a provider bills. Agents, workflows and tools consist of them, and repeat their sums."""

EMBEDDINGS: Final = "embeddings"
REQUEST_STREAM: Final = "gen_ai.request.stream"
FINISH: Final = "gen_ai.response.finish_reasons"
FIRST_CHUNK_S: Final = "gen_ai.response.time_to_first_chunk"
ERROR: Final = "error.type"
OPENAI_TIER: Final = "openai.response.service_tier"
ANTHROPIC_TIER: Final = "anthropic.response.service_tier"
CACHE_WRITE_1H: Final = "anthropic.usage.cache_creation.ephemeral_1h_input_tokens"

CACHE_WRITE: Final = "gen_ai.usage.cache_write.input_tokens"
CACHE_CREATION: Final = "gen_ai.usage.cache_creation.input_tokens"
"""The name that the convention had for `CACHE_WRITE`; some backends read only this one."""

OPENINFERENCE: Final = "openinference.span.kind"
OPENINFERENCE_CALLS: Final[Mapping[str, str]] = {"LLM": "chat", "EMBEDDING": EMBEDDINGS}
"""By the kind that OpenInference's instrumentations give a span, the convention's operation."""

_NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    "input": ("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens", "llm.token_count.prompt"),
    "output": ("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens", "llm.token_count.completion"),
    "cache_read": (
        "gen_ai.usage.cache_read.input_tokens",
        "gen_ai.usage.cache_read_input_tokens",
        "gen_ai.usage.input_tokens.cached",
        "llm.token_count.prompt_details.cache_read",
    ),
    "cache_write": (
        CACHE_WRITE,
        CACHE_CREATION,
        "gen_ai.usage.cache_creation_input_tokens",
        "llm.token_count.prompt_details.cache_write",
    ),
    "cache_write_1h": (CACHE_WRITE_1H,),
    "reasoning": (
        "gen_ai.usage.reasoning.output_tokens",
        "gen_ai.usage.reasoning_tokens",
        "gen_ai.usage.output_tokens.reasoning",
        "llm.token_count.completion_details.reasoning",
    ),
    "audio_input": ("gen_ai.usage.audio.input_tokens", "llm.token_count.prompt_details.audio"),
    "audio_output": ("gen_ai.usage.audio.output_tokens", "llm.token_count.completion_details.audio"),
    "audio_cache_read": ("gen_ai.usage.audio.cache_read.input_tokens",),
    "image_input": ("gen_ai.usage.image.input_tokens",),
    "image_output": ("gen_ai.usage.image.output_tokens",),
    "image_cache_read": ("gen_ai.usage.image.cache_read.input_tokens",),
}


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one call.

    Attributes:
        input: All that went in, cached tokens, audio and images included, as the convention has it.
        output: All that came out, reasoning, audio and images included.
        cache_read: Of the input, what came from the provider's cache.
        cache_write: Of the input, what was put into it.
        cache_write_1h: Of `cache_write`, what is to stay for an hour instead of minutes.
        reasoning: Of the output, what was thought and not said.
        audio_input: Of the input, audio.
        audio_output: Of the output, audio.
        audio_cache_read: Of the audio that went in, what came from the cache.
        image_input: Of the input, images.
        image_output: Of the output, images.
        image_cache_read: Of the images that went in, what came from the cache.
    """

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0
    cache_write_1h: int = 0
    reasoning: int = 0
    audio_input: int = 0
    audio_output: int = 0
    audio_cache_read: int = 0
    image_input: int = 0
    image_output: int = 0
    image_cache_read: int = 0


def operation_of(attributes: Mapping[str, Any]) -> str:
    """What a span that has to do with a model does, in the convention's words; empty for another span."""
    operation = attributes.get(OPERATION)
    if operation is None:
        kind = attributes.get(OPENINFERENCE)
        return OPENINFERENCE_CALLS.get(kind, "") if isinstance(kind, str) else ""
    return operation if isinstance(operation, str) else ""


def provider_of(attributes: Mapping[str, Any]) -> str:
    """Whose model it is; empty where nobody says."""
    for name in (PROVIDER, "gen_ai.system", "llm.provider", "llm.system"):
        if value := attributes.get(name):
            return str(value)
    return ""


def models_of(attributes: Mapping[str, Any]) -> tuple[str, str]:
    """The model that was asked, and the one that answered; empty where nobody says."""
    asked = attributes.get(REQUEST_MODEL) or attributes.get("llm.model_name") or ""
    return str(asked), str(attributes.get(RESPONSE_MODEL) or "")


def usage_of(attributes: Mapping[str, Any]) -> Usage | None:
    """The tokens that the attributes of a span tell of; None where they tell of none.

    Parts never exceed what they are part of. Where more was cached than went in, the instrumentation counts cached
    tokens beside the input, and they are added, so that `input` means the same for all.
    """
    found: dict[str, int] = {}
    for field, names in _NAMES.items():
        for name in names:
            value = attributes.get(name)
            if type(value) is int and value >= 0:
                found[field] = value
                break
    if "input" not in found and "output" not in found:
        return None
    input_, output = found.get("input", 0), found.get("output", 0)
    read, write = found.get("cache_read", 0), found.get("cache_write", 0)
    write = max(write, found.get("cache_write_1h", 0))
    if read + write > input_:
        input_ += read + write
    audio_in = min(found.get("audio_input", 0), input_)
    image_in = min(found.get("image_input", 0), input_ - audio_in)
    audio_out = min(found.get("audio_output", 0), output)
    audio_read = min(found.get("audio_cache_read", 0), audio_in, read)
    return Usage(
        input=input_,
        output=output,
        cache_read=read,
        cache_write=write,
        cache_write_1h=min(found.get("cache_write_1h", 0), write),
        reasoning=min(found.get("reasoning", 0), output),
        audio_input=audio_in,
        audio_output=audio_out,
        audio_cache_read=audio_read,
        image_input=image_in,
        image_output=min(found.get("image_output", 0), output - audio_out),
        image_cache_read=min(found.get("image_cache_read", 0), image_in, read - audio_read),
    )


def tier_of(attributes: Mapping[str, Any]) -> str:
    """The service tier that the provider says it served; empty where it says none."""
    for name in (OPENAI_TIER, "gen_ai.openai.response.service_tier", ANTHROPIC_TIER):
        value = attributes.get(name)
        if isinstance(value, str):
            return value
    return ""


def are_final(attributes: Mapping[str, Any], *, by_client: bool) -> bool:
    """Whether the tokens of a call, or that there are none, are all there is to be told of it.

    They are not where an answer came and told none, as streams do that nobody asked for it; nor where a stream was left
    before its end, whose output is counted only there.

    Args:
        attributes: Of the span of the call.
        by_client: Whether the span is an instrumentation's, and so would have tokens if they were known.
    """
    if any(name in attributes for name in (*_NAMES["input"], *_NAMES["output"])):
        return attributes.get(REQUEST_STREAM) is not True or bool(attributes.get(FINISH))
    if RESPONSE_ID in attributes or RESPONSE_MODEL in attributes:
        return False
    return not by_client or (ERROR in attributes and FIRST_CHUNK_S not in attributes)
