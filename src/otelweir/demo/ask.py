"""The demo's second part: the assistant is asked, and what it did is held against what arrived.

It runs like the shop, in a process of its own, with OpenAI's real client; the model is a `ModelProvider` of ours, which
counts what it was asked and what it told. One question has a key in it, as customers paste them, and one fails.
"""

from __future__ import annotations

import json
import math
import re
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from otelweir.demo.comparison import Comparison, Received, compare
from otelweir.demo.launch import Service
from otelweir.demo.provider import Asked, ModelProvider, Reply, ToolCall
from otelweir.devserver import Record, Span, Store
from otelweir.devserver.otlp import decode
from otelweir.devserver.rows import SIGNALS
from otelweir.testing import Backend

NEEDS: Final = ("openai", "opentelemetry.instrumentation.genai.openai", "genai_prices")
NAME: Final = "assistant"
QUESTIONS: Final = 20
HELD: Final = "flight_recorder"

_WITH_SECRET: Final = 3
_FAILING: Final = 18
_ORDERS_FROM: Final = 420
_LOST_ORDER: Final = 413
_ALL: Final = 10**6
_MARK: Final = "[redacted:"
_CALLS: Final = ("chat", "embeddings")


@dataclass(slots=True)
class Told:
    """What the provider of the model counted: the truth about calls and tokens.

    Attributes:
        heard: Everything that it was asked.
    """

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    heard: str = ""


@dataclass(frozen=True, slots=True)
class Seen:
    """What the backend has of the same.

    Attributes:
        cost: What the calls cost together, in US dollars.
    """

    calls: int
    input_tokens: int
    output_tokens: int
    cost: float


@dataclass(frozen=True, slots=True)
class Answers:
    """What was found out about the assistant.

    Attributes:
        comparison: Its log file held against the log records that arrived.
        told: Calls and tokens, as the provider counted them.
        seen: The same, as the spans that arrived have it.
        trace: The spans of one question, as a tree.
        failed: The spans of the question that failed.
        records: The log records of that one that arrived, by time.
        secret: What a customer pasted into a question; made up, and another one in each run.
        instead: Where that question arrived, and what was there in the place of the secret.
        received_bytes: What the backend received.
        calls: What is wrong with calls, tokens and cost, each a sentence; likewise `flight` with the flight recorder,
            and `hidden` with the secret.
        problems: What else went wrong.
    """

    comparison: Comparison
    told: Told
    seen: Seen
    trace: list[Span]
    failed: list[Span]
    records: tuple[Record, ...]
    secret: str
    instead: tuple[tuple[str, str], ...]
    received_bytes: int
    calls: tuple[str, ...]
    flight: tuple[str, ...]
    hidden: tuple[str, ...]
    problems: tuple[str, ...] = ()

    @property
    def held(self) -> tuple[Record, ...]:
        """What the flight recorder had: records that sampling did not keep, sent because of the error."""
        return tuple(record for record in self.records if record.reason == HELD)

    @property
    def differences(self) -> tuple[str, ...]:
        return (*self.comparison.differences, *self.calls, *self.flight, *self.hidden, *self.problems)

    @property
    def ok(self) -> bool:
        return not self.differences


def missing() -> str:
    """The first package that the assistant needs and that is not installed; "" if all are."""
    for module in NEEDS:
        try:
            if find_spec(module) is None:
                return module
        except ModuleNotFoundError:  # a package above it
            return module
    return ""


def ask(folder: Path, told: threading.Event, received: Callable[[Store], Received], keep: Store) -> Answers:
    """Run the assistant; nothing of it is left running.

    Args:
        folder: A new one, for its files.
        told: Set it to end early.
        received: Reads what a store has.
        keep: Where what arrives goes, besides.

    Raises:
        Interrupted: `told` was set.
    """
    folder.mkdir()
    secret = f"sk-proj-{secrets.token_hex(24)}"
    asked = folder / "questions.json"
    asked.write_text(json.dumps(questions(secret)))
    model = Model()
    with ModelProvider(model) as provider, Backend() as backend:
        variables = {
            "OTEL_SERVICE_NAME": NAME,
            "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "span_only",
            # Or the secret would be looked for in what hides it.
            "OTEL_EXPORTER_OTLP_COMPRESSION": "none",
            "WEIR_FLIGHT_RECORDER": "errors",
            "WEIR_SPOOL_DIR": str(folder / "spool"),
            "OPENAI_BASE_URL": provider.openai_url,
            "OPENAI_API_KEY": "none",
        }
        program = ("-m", "otelweir.demo.assistant", "--questions", str(asked))
        with Service(folder, backend.endpoint, program, variables) as service:
            ended_well = service.finish(told)
            problems = () if ended_well else (f"the assistant did not end well: {service.output()}",)
        requests = backend.requests
    with Store() as store:
        for request in requests:
            for signal in SIGNALS:
                if request.path == f"/v1/{signal}":
                    batch = decode(signal, "protobuf", request.body)
                    store.write(batch, len(request.body))
                    keep.write(batch, len(request.body))
        comparison = compare(service.log.read_on(), received(store))
        traces = [store.trace(trace.trace_id) for trace in store.traces(_ALL)]
        records = store.recent_records(_ALL)
    logged = service.log.path.read_text() if service.log.path.exists() else ""
    return judge(comparison, model.told, traces, records, secret, logged, [one.body for one in requests], problems)


def judge(
    comparison: Comparison,
    told: Told,
    traces: Sequence[list[Span]],
    records: Iterable[Record],
    secret: str,
    logged: str,
    bodies: Sequence[bytes],
    problems: tuple[str, ...] = (),
) -> Answers:
    """Hold what arrived against what the provider and the log file know.

    Args:
        comparison: The log file and the log records.
        told: What the provider counted.
        traces: The spans that arrived, a tree each.
        records: The log records that arrived.
        secret: What must not have arrived.
        logged: The log file.
        bodies: All that the backend received, as it was sent.
        problems: What went wrong besides.
    """
    records = sorted(records, key=lambda record: (record.time_ns, record.id))
    seen = _seen(traces)
    worst = next((record.trace_id for record in records if record.severity == "error"), "")
    failed = next((tree for tree in traces if tree and tree[0].trace_id == worst), [])
    of_failed = tuple(record for record in records if record.trace_id == worst and worst)
    fine = [tree for tree in traces if len(tree) == 1 and tree is not failed and not _has_mark(tree)]
    instead = tuple(_instead(traces, records))
    return Answers(
        comparison=comparison,
        told=told,
        seen=seen,
        trace=max(fine, key=lambda tree: len(list(_spans(tree))), default=[]),
        failed=failed,
        records=of_failed,
        secret=secret,
        instead=instead,
        received_bytes=sum(map(len, bodies)),
        calls=tuple(_calls(told, seen, traces)),
        flight=tuple(_flight(of_failed)),
        hidden=tuple(_hidden(secret, told, logged, bodies, instead)),
        problems=problems,
    )


def questions(secret: str) -> list[str]:
    """What the customers ask."""
    asked = [f"Where is order {_ORDERS_FROM + number}, and how long is delivery?" for number in range(QUESTIONS)]
    asked[1::5] = ["Does the kettle have a guarantee?"] * len(asked[1::5])
    asked[_WITH_SECRET] = f"My login with {secret} fails, and where is order {_ORDERS_FROM}?"
    asked[_FAILING] = f"Where is order {_LOST_ORDER}? I want to return it."
    return asked


class Model:
    """What stands for the model: it calls a tool where an order is asked for, and then answers.

    Attributes:
        told: What it counted.
    """

    def __init__(self) -> None:
        self.told = Told()

    def __call__(self, asked: Asked) -> Reply:
        reply = Reply() if asked.path == "/v1/embeddings" else self._answer(asked.body["messages"])
        # About four characters are a token; the system's instruction is cached, as providers do.
        heard = len(json.dumps(asked.body)) // 4
        said = (len(reply.text) + sum(len(json.dumps(dict(tool.arguments))) for tool in reply.tools)) // 4
        told = self.told
        told.calls += 1
        told.input_tokens += heard
        told.output_tokens += said
        told.heard += json.dumps(asked.body)
        usage: dict[str, Any] = {"prompt_tokens": heard, "total_tokens": heard + said}
        if asked.path != "/v1/embeddings":
            usage |= {"completion_tokens": said, "prompt_tokens_details": {"cached_tokens": heard // 3}}
        return Reply(reply.text, reply.tools, usage)

    def _answer(self, messages: Sequence[dict[str, Any]]) -> Reply:
        order = re.search(r"order (\d+)", str(messages[1]["content"]))
        if messages[-1]["role"] == "tool":
            return Reply(f"Your order is {messages[-1]['content']}. Our people gladly tell you more.")
        if order:
            return Reply(tools=(ToolCall("order_status", {"order": int(order[1])}),))
        return Reply("Yes: the kettle is repaired for ten years.")


def tokens_of(span: Span) -> tuple[int, int] | None:
    """Input and output tokens of a call of a model, of the local root those of all calls; None where there are none."""
    for prefix in ("gen_ai.usage", "weir.trace.usage"):
        if (heard := span.attributes.get(f"{prefix}.input_tokens")) is not None:
            return int(heard), int(span.attributes.get(f"{prefix}.output_tokens") or 0)
    return None


def cost_of(span: Span) -> float | None:
    """What a call, or all of a local root, cost in US dollars; None where nothing is known."""
    for name in ("weir.cost.amount", "weir.trace.cost.amount"):
        if (amount := span.attributes.get(name)) is not None:
            return float(amount)
    return None


# ── parts ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _spans(trees: Iterable[Span]) -> Iterator[Span]:
    for span in trees:
        yield span
        yield from _spans(span.children)


def _model_calls(trees: Iterable[Span]) -> list[Span]:
    return [span for span in _spans(trees) if span.attributes.get("gen_ai.operation.name") in _CALLS]


def _seen(traces: Sequence[list[Span]]) -> Seen:
    calls = [span for tree in traces for span in _model_calls(tree)]
    tokens = [tokens_of(span) or (0, 0) for span in calls]
    return Seen(
        len(calls),
        sum(heard for heard, _ in tokens),
        sum(said for _, said in tokens),
        math.fsum(cost_of(span) or 0.0 for span in calls),
    )


def _calls(told: Told, seen: Seen, traces: Sequence[list[Span]]) -> Iterator[str]:
    if not told.calls:
        yield "the model was not asked"
    for name, truth, arrived in (
        ("calls", told.calls, seen.calls),
        ("input tokens", told.input_tokens, seen.input_tokens),
        ("output tokens", told.output_tokens, seen.output_tokens),
    ):
        if truth != arrived:
            yield f"the provider counted {truth:,} {name}, the spans {arrived:,}"
    unpriced = sum(not cost_of(span) for tree in traces for span in _model_calls(tree))
    if unpriced:
        yield f"{unpriced:,} of the calls have no cost"
    roots = math.fsum(cost_of(root) or 0.0 for tree in traces for root in tree)
    if not math.isclose(roots, seen.cost, rel_tol=1e-9):
        yield f"the roots say that the calls cost ${roots:.6f}, the calls ${seen.cost:.6f}"


def _flight(records: Sequence[Record]) -> Iterator[str]:
    if not records:
        yield "no error with a trace arrived"
        return
    held = [record for record in records if record.reason == HELD]
    if not held:
        yield "the error came without the records before it"
    if weighing := sum(record.weight != 0 for record in held):
        yield f"{weighing:,} of the records that came with the error have a weight"


def _hidden(
    secret: str, told: Told, logged: str, bodies: Sequence[bytes], instead: Sequence[tuple[str, str]]
) -> Iterator[str]:
    if secret not in logged or secret not in told.heard:
        yield "the secret was not logged and asked, so there was nothing to hide"
    # Either half: what is left of a secret must not help anybody.
    half = len(secret) // 2
    parts = (secret[:half].encode(), secret[half:].encode())
    if leaked := sum(any(part in body for part in parts) for body in bodies):
        yield f"the secret is in {leaked:,} of the requests that left"
    if not instead:
        yield "nothing arrived in the place of the secret"


def _instead(traces: Sequence[list[Span]], records: Iterable[Record]) -> Iterator[tuple[str, str]]:
    """Where a mark stands for something: the first of each place, and what is around it."""
    found: dict[str, str] = {}
    for record in records:
        if _MARK in record.body:
            found.setdefault("log record", record.body)
    for span in _spans(span for tree in traces for span in tree):
        for name, value in span.attributes.items():
            if isinstance(value, str) and _MARK in value:
                found.setdefault(f"{span.name.partition(' ')[0]}, {name}", value)
    for place, text in found.items():
        at = text.index(_MARK)
        # In JSON the string around it.
        begin, end = text.rfind('"', 0, at) + 1, text.find('"', at)
        yield place, text[begin : None if end < 0 else end]


def _has_mark(tree: Iterable[Span]) -> bool:
    return any(_MARK in str(span.attributes) for span in _spans(tree))
