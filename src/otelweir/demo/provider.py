"""A provider of language models on this machine, for demos, examples and tests.

It speaks the wire formats of OpenAI (chat completions, responses, embeddings; by Azure's paths, too) and Anthropic
(messages), streams as they do (server-sent events), and answers what it was told to answer, so the real clients run
without a network:

    with ModelProvider([Reply("Hello!")]) as provider:
        client = openai.OpenAI(base_url=provider.openai_url, api_key="none")
        client.chat.completions.create(model="gpt-4o-mini", messages=[...])

Sources: https://platform.openai.com/docs/api-reference, https://docs.anthropic.com/en/api/messages-streaming
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Final

_MAX_BODY: Final = 16 * 2**20
_AZURE: Final = re.compile(r"^/openai/deployments/[^/]+")
"""What the paths of Azure's service begin with."""

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """The model asks for a tool."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    id: str = "call_1"


@dataclass(frozen=True, slots=True)
class Reply:
    """What the provider answers.

    Attributes:
        text: What the model says.
        tools: The tools it asks for.
        usage: The usage object, in the provider's own form; None counts words as tokens.
        model: The model named in the answer; empty for the one that was asked.
        status: The HTTP status; from 400 on the answer is an error.
        headers: Further headers of the answer.
        tier: The service tier that OpenAI names.
        pause_s: How long to wait before each chunk of a stream.
        broken_after: Hang up after that many chunks of a stream; None for never.
        number: What the id of the answer ends with; the server sets it.
    """

    text: str = ""
    tools: tuple[ToolCall, ...] = ()
    usage: Mapping[str, Any] | None = None
    model: str = ""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    tier: str = ""
    pause_s: float = 0.0
    broken_after: int | None = None
    number: int = 0


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that came in."""

    path: str
    body: Json
    headers: Mapping[str, str]


Answers = Callable[[Asked], Reply]


def echo(asked: Asked) -> Reply:
    """Repeat the last thing that was said."""
    messages = asked.body.get("messages") or asked.body.get("input") or ""
    last = messages[-1] if isinstance(messages, list) and messages else messages
    content = last.get("content", "") if isinstance(last, dict) else last
    if isinstance(content, list):
        content = " ".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return Reply(f"You said: {content}")


class ModelProvider:
    """A server on a free port of this machine. Use as a context manager, or `close` it.

    Args:
        replies: Given out in turn, then `echo`; or what makes a reply of a request.
        files: What it answers to a GET, by path.
    """

    def __init__(self, replies: Iterable[Reply] | Answers = (), files: Mapping[str, bytes] | None = None) -> None:
        self.asked: list[Asked] = []
        self.files: dict[str, bytes] = dict(files or {})
        self._lock = threading.Lock()
        self._answers: Answers | None = replies if callable(replies) else None
        self._waiting: Iterator[Reply] = iter(()) if callable(replies) else iter(tuple(replies))
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.provider = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        return f"<ModelProvider {self.url}, {len(self.asked)} asked>"

    @property
    def url(self) -> str:
        """Where it listens; the `base_url` of Anthropic's client."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def openai_url(self) -> str:
        """The `base_url` of OpenAI's client."""
        return f"{self.url}/v1"

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def __enter__(self) -> ModelProvider:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _reply(self, asked: Asked) -> Reply:
        with self._lock:
            self.asked.append(asked)
            number = len(self.asked)
            reply = self._answers(asked) if self._answers is not None else next(self._waiting, None) or echo(asked)
            return replace(reply, number=number)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    provider: ModelProvider

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up in the middle of a stream is nothing to report."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        if length > _MAX_BODY:
            self.close_connection = True
            self.send_error(413)
            return
        body: Json = json.loads(self.rfile.read(length) or b"{}")
        headers = {name.lower(): value for name, value in self.headers.items()}
        asked = Asked(self.path.partition("?")[0], body, headers)
        speaks = _FORMATS.get(_AZURE.sub("/v1", asked.path))
        if speaks is None:
            self._json(404, {"error": {"type": "not_found_error", "message": f"no {asked.path} here"}}, {})
            return
        reply = self.server.provider._reply(asked)
        if reply.status >= 400:
            error = {"type": "error", "error": {"type": "api_error", "message": reply.text or "refused", "code": None}}
            self._json(reply.status, error, reply.headers)
        elif body.get("stream"):
            self._stream(reply, speaks.stream(reply, body))
        else:
            self._json(reply.status, speaks.whole(reply, body), reply.headers)

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        data = self.server.provider.files.get(path)
        if data is None:
            self._json(404, {"error": {"type": "not_found_error", "message": f"no {path} here"}}, {})
        else:
            self._send(200, data, {})

    def _json(self, status: int, answer: Json, headers: Mapping[str, str]) -> None:
        self._send(status, json.dumps(answer).encode(), headers)

    def _send(self, status: int, data: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "request-id": "req_1", **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _stream(self, reply: Reply, events: Iterable[tuple[str, Json | None]]) -> None:
        self.close_connection = True
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        for sent, (name, event) in enumerate(events):
            if sent == reply.broken_after:
                return
            if reply.pause_s:
                time.sleep(reply.pause_s)
            line = f"event: {name}\n" if name else ""
            data = "[DONE]" if event is None else json.dumps(event)
            self.wfile.write(f"{line}data: {data}\n\n".encode())
            self.wfile.flush()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name that http.server gives
        """Say nothing."""


@dataclass(frozen=True, slots=True)
class _Format:
    whole: Callable[[Reply, Json], Json]
    stream: Callable[[Reply, Json], Iterator[tuple[str, Json | None]]]


def _words(value: object) -> int:
    return len(json.dumps(value).split()) if value else 0


def _pieces(text: str) -> list[str]:
    words = text.split(" ")
    return [word if at == 0 else f" {word}" for at, word in enumerate(words)] if text else []


def _chat_usage(reply: Reply, body: Json) -> Json:
    if reply.usage is not None:
        return dict(reply.usage)
    said, heard = _words(reply.text) + sum(_words(dict(tool.arguments)) for tool in reply.tools), _words(body)
    return {"prompt_tokens": heard, "completion_tokens": said, "total_tokens": heard + said}


def _chat_tools(reply: Reply) -> list[Json]:
    return [
        {
            "id": tool.id,
            "type": "function",
            "function": {"name": tool.name, "arguments": json.dumps(dict(tool.arguments))},
        }
        for tool in reply.tools
    ]


def _chat_head(reply: Reply, body: Json, kind: str) -> Json:
    head: Json = {
        "id": f"chatcmpl-{reply.number}",
        "object": kind,
        "created": 1,
        "model": reply.model or body.get("model", ""),
    }
    return {**head, "service_tier": reply.tier} if reply.tier else head


def _chat(reply: Reply, body: Json) -> Json:
    message: Json = {"role": "assistant", "content": reply.text or None, "refusal": None}
    if reply.tools:
        message["tool_calls"] = _chat_tools(reply)
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if reply.tools else "stop"}
    return {
        **_chat_head(reply, body, "chat.completion"),
        "choices": [choice] * (body.get("n") or 1),
        "usage": _chat_usage(reply, body),
    }


def _chat_stream(reply: Reply, body: Json) -> Iterator[tuple[str, Json | None]]:
    head = _chat_head(reply, body, "chat.completion.chunk")

    def chunk(delta: Json, finish: str | None = None) -> tuple[str, Json]:
        return "", {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}

    yield chunk({"role": "assistant", "content": ""})
    for piece in _pieces(reply.text):
        yield chunk({"content": piece})
    for at, tool in enumerate(_chat_tools(reply)):
        yield chunk({"tool_calls": [{**tool, "index": at, "function": {**tool["function"], "arguments": ""}}]})
        yield chunk({"tool_calls": [{"index": at, "function": {"arguments": tool["function"]["arguments"]}}]})
    yield chunk({}, "tool_calls" if reply.tools else "stop")
    if (body.get("stream_options") or {}).get("include_usage"):
        yield "", {**head, "choices": [], "usage": _chat_usage(reply, body)}
    yield "", None


def _embeddings(reply: Reply, body: Json) -> Json:
    given = body.get("input") or ""
    texts = [given] if isinstance(given, str) else given
    tokens = _words(given)
    return {
        "object": "list",
        "model": reply.model or body.get("model", ""),
        "data": [{"object": "embedding", "index": at, "embedding": [0.1, 0.2, 0.3]} for at, _ in enumerate(texts)],
        "usage": dict(reply.usage) if reply.usage is not None else {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def _response(reply: Reply, body: Json) -> Json:
    heard, said = _words(body), _words(reply.text)
    output: list[Json] = [
        {
            "type": "function_call",
            "id": f"fc_{tool.id}",
            "call_id": tool.id,
            "name": tool.name,
            "arguments": json.dumps(dict(tool.arguments)),
            "status": "completed",
        }
        for tool in reply.tools
    ]
    if reply.text:
        text = {"type": "output_text", "text": reply.text, "annotations": []}
        output.append({"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [text]})
    return {
        "id": f"resp_{reply.number}",
        "object": "response",
        "created_at": 1,
        "status": "completed",
        "model": reply.model or body.get("model", ""),
        "output": output,
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "service_tier": reply.tier or "default",
        "usage": dict(reply.usage)
        if reply.usage is not None
        else {
            "input_tokens": heard,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": said,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": heard + said,
        },
    }


def _response_stream(reply: Reply, body: Json) -> Iterator[tuple[str, Json | None]]:
    whole = _response(reply, body)
    begun = {**whole, "status": "in_progress", "output": [], "usage": None}
    number = 0

    def event(kind: str, **content: Any) -> tuple[str, Json]:
        nonlocal number
        number += 1
        return kind, {"type": kind, "sequence_number": number, **content}

    yield event("response.created", response=begun)
    for at, item in enumerate(whole["output"]):
        if item["type"] == "message":
            empty = {**item, "status": "in_progress", "content": []}
            yield event("response.output_item.added", output_index=at, item=empty)
            part = {"type": "output_text", "text": "", "annotations": []}
            where = {"item_id": item["id"], "output_index": at, "content_index": 0}
            yield event("response.content_part.added", **where, part=part)
            for piece in _pieces(reply.text):
                yield event("response.output_text.delta", **where, delta=piece, logprobs=[])
            yield event("response.output_text.done", **where, text=reply.text, logprobs=[])
            yield event("response.content_part.done", **where, part=item["content"][0])
        else:
            yield event("response.output_item.added", output_index=at, item={**item, "arguments": ""})
            where = {"item_id": item["id"], "output_index": at}
            yield event("response.function_call_arguments.delta", **where, delta=item["arguments"])
            yield event(
                "response.function_call_arguments.done", **where, name=item["name"], arguments=item["arguments"]
            )
        yield event("response.output_item.done", output_index=at, item=item)
    yield event("response.completed", response=whole)


def _message_usage(reply: Reply, body: Json) -> Json:
    if reply.usage is not None:
        return dict(reply.usage)
    return {
        "input_tokens": _words(body),
        "output_tokens": _words(reply.text),
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
    }


def _blocks(reply: Reply) -> list[Json]:
    said: list[Json] = [{"type": "text", "text": reply.text}] if reply.text else []
    return said + [
        {"type": "tool_use", "id": tool.id, "name": tool.name, "input": dict(tool.arguments)} for tool in reply.tools
    ]


def _message(reply: Reply, body: Json) -> Json:
    return {
        "id": f"msg_{reply.number}",
        "type": "message",
        "role": "assistant",
        "model": reply.model or body.get("model", ""),
        "content": _blocks(reply),
        "stop_reason": "tool_use" if reply.tools else "end_turn",
        "stop_sequence": None,
        "usage": _message_usage(reply, body),
    }


def _message_stream(reply: Reply, body: Json) -> Iterator[tuple[str, Json | None]]:
    whole = _message(reply, body)
    usage = whole["usage"]

    def event(kind: str, **content: Any) -> tuple[str, Json]:
        return kind, {"type": kind, **content}

    begun = {**whole, "content": [], "stop_reason": None, "usage": {**usage, "output_tokens": 1}}
    yield event("message_start", message=begun)
    for at, block in enumerate(whole["content"]):
        if block["type"] == "text":
            yield event("content_block_start", index=at, content_block={"type": "text", "text": ""})
            for piece in _pieces(block["text"]):
                yield event("content_block_delta", index=at, delta={"type": "text_delta", "text": piece})
        else:
            yield event("content_block_start", index=at, content_block={**block, "input": {}})
            delta = {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
            yield event("content_block_delta", index=at, delta=delta)
        yield event("content_block_stop", index=at)
    yield event(
        "message_delta",
        delta={"stop_reason": whole["stop_reason"], "stop_sequence": None},
        usage={"output_tokens": usage["output_tokens"]},
    )
    yield event("message_stop")


_FORMATS: Final[Mapping[str, _Format]] = {
    "/v1/chat/completions": _Format(_chat, _chat_stream),
    "/v1/responses": _Format(_response, _response_stream),
    "/v1/embeddings": _Format(_embeddings, lambda reply, body: iter(())),
    "/v1/messages": _Format(_message, _message_stream),
}
