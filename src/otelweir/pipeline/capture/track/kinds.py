"""What a tracked function is, and how telemetry says so: by the conventions for generative AI where they have a word.

Source: https://github.com/open-telemetry/semantic-conventions-genai
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, get_args

from otelweir.signals import AnyValue

Kind = Literal["llm", "tool", "agent", "chain", "retriever", "embedding", "evaluator"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)

OPERATION: Final = "gen_ai.operation.name"
OPENINFERENCE: Final = "openinference.span.kind"

_OPERATIONS: Final[Mapping[Kind, str]] = {
    "llm": "chat",
    "tool": "execute_tool",
    "agent": "invoke_agent",
    "retriever": "retrieval",
    "embedding": "embeddings",
}

INPUT: Final = "input.value"
INPUT_TYPE: Final = "input.mime_type"
OUTPUT: Final = "output.value"
OUTPUT_TYPE: Final = "output.mime_type"
JSON: Final = "application/json"

INPUT_MESSAGES: Final = "gen_ai.input.messages"
OUTPUT_MESSAGES: Final = "gen_ai.output.messages"
TOOL_ARGUMENTS: Final = "gen_ai.tool.call.arguments"
TOOL_RESULT: Final = "gen_ai.tool.call.result"
QUERY: Final = "gen_ai.retrieval.query.text"
DOCUMENTS: Final = "gen_ai.retrieval.documents"
DIMENSIONS: Final = "gen_ai.embeddings.dimension.count"
FIRST_CHUNK_S: Final = "gen_ai.response.time_to_first_chunk"

_FEW_DOCUMENTS: Final = 100


def attributes_of_kind(kind: Kind | None, name: str, about: str | None = None) -> dict[str, AnyValue]:
    """What a span of this kind carries from its start.

    Args:
        kind: The kind; None for a plain function.
        name: What it is called.
        about: What it says about itself, such as the first line of its docstring.
    """
    if kind is None:
        return {}
    if kind not in _OPERATIONS:
        return {OPENINFERENCE: kind.upper()}
    found: dict[str, AnyValue] = {OPERATION: _OPERATIONS[kind]}
    if kind == "tool":
        found |= {"gen_ai.tool.name": name, "gen_ai.tool.type": "function"}
        if about:
            found["gen_ai.tool.description"] = about
    elif kind == "agent":
        found["gen_ai.agent.name"] = name
        if about:
            found["gen_ai.agent.description"] = about
    return found


def input_messages(given: object) -> list[dict[str, object]]:
    """The input of a chat as its conventions write it.

    Args:
        given: A text, a list of messages (`{"role": …, "content": …}`), or a mapping that has one of them under
            `messages`, `prompt`, or as its only value.
    """
    if type(given) is dict:
        found = given.get("messages", given.get("prompt", next(iter(given.values())) if len(given) == 1 else given))
        before = [given["system"]] if type(given.get("system")) is str and "messages" in given else []
        return [_message("system", text) for text in before] + _messages(found, "user")
    return _messages(given, "user")


def output_messages(given: object) -> list[dict[str, object]]:
    """The output of a chat as its conventions write it; a message without a finish reason has ended by itself."""
    found = _messages(given, "assistant")
    for message in found:
        message.setdefault("finish_reason", "stop")
    return found


def _messages(given: object, role: str) -> list[dict[str, object]]:
    if isinstance(given, (list, tuple)) and given and all(type(one) is dict and "role" in one for one in given):
        return [_known(one) for one in given]
    if type(given) is dict and "role" in given:
        return [_known(given)]
    return [_message(role, given)]


def _known(message: dict[str, Any]) -> dict[str, object]:
    if "parts" in message:
        return dict(message)
    found = _message(message["role"], message.get("content"))
    parts = found["parts"]
    assert isinstance(parts, list)
    calls = message.get("tool_calls")
    for call in calls if isinstance(calls, (list, tuple)) else ():
        function = call.get("function") if type(call) is dict else None
        if type(function) is dict:
            name, arguments = function.get("name"), function.get("arguments")
            parts.append({"type": "tool_call", "id": call.get("id"), "name": name, "arguments": arguments})
    if message["role"] == "tool" and "tool_call_id" in message:
        found["parts"] = [
            {"type": "tool_call_response", "id": message["tool_call_id"], "response": message.get("content")}
        ]
    if type(message.get("finish_reason")) is str:
        found["finish_reason"] = message["finish_reason"]
    return found


def _message(role: object, content: object) -> dict[str, object]:
    return {"role": role, "parts": _parts(content)}


def _parts(content: object) -> list[object]:
    if content is None:
        return []
    if isinstance(content, (list, tuple)):
        return [
            {"type": "text", "content": part["text"]}
            if type(part) is dict and type(part.get("text")) is str
            else part
            if type(part) is dict and "type" in part
            else {"type": "text", "content": _said(part)}
            for part in content
        ]
    return [{"type": "text", "content": _said(content)}]


def _said(content: object) -> str:
    if type(content) is str:
        return content
    # Only here, as it is much to load for who tracks nothing.
    from otelweir.pipeline.capture.track.content import content_of

    return content_of(content).text


def query_of(given: object) -> str | None:
    """The text that a retriever looks for: its first text argument."""
    if type(given) is str:
        return given
    if type(given) is dict:
        return next((value for value in given.values() if type(value) is str), None)
    return None


def documents_of(found: object) -> list[dict[str, object]] | None:
    """Ids and scores of what a retriever found; None where its documents have none."""
    if not isinstance(found, (list, tuple)) or not found:
        return None
    documents = []
    for document in found[:_FEW_DOCUMENTS]:
        if type(document) is not dict or "id" not in document:
            return None
        documents.append({key: document[key] for key in ("id", "score") if key in document})
    return documents


def vectors_of(found: object) -> tuple[int, int] | None:
    """How many vectors an embedding gave, and of how many dimensions; None where it gave something else."""
    shape = getattr(found, "shape", None) if type(found).__module__.partition(".")[0] in ("numpy", "torch") else None
    if shape is not None and 1 <= len(shape) <= 2:
        return (1, int(shape[0])) if len(shape) == 1 else (int(shape[0]), int(shape[1]))
    if not isinstance(found, Sequence) or not isinstance(found, (list, tuple)) or not found:
        return None
    if all(isinstance(number, (int, float)) for number in found[:4]):
        return 1, len(found)
    first = found[0]
    if isinstance(first, (list, tuple)) and first and isinstance(first[0], (int, float)):
        return len(found), len(first)
    return None
