"""The official encoder is the truth; where it loses a record, ours does not."""

from __future__ import annotations

import collections
import enum
import math
import subprocess
import sys
import threading
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.attributes import BoundedAttributes
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk._logs import LogRecordLimits, ReadableLogRecord, ReadWriteLogRecord
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.util import BoundedList
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    TraceFlags,
    TraceState,
    set_span_in_context,
)
from opentelemetry.trace.status import Status, StatusCode

from otelweir.pipeline.spool import otlp
from otelweir.pipeline.spool.otlp import Encoded, Group, encode_log, encode_span, join

# --- the data model -------------------------------------------------------------------------------------------------

texts = (
    st.text(max_size=12)
    | st.text(alphabet="ä€😀a\x00", max_size=200)
    | st.sampled_from(["", "GET", "x" * 95, "x" * 96])
)
"""Without lone surrogates, as `st.text` has none by default."""

INTS = [0, 1, -1, 127, 128, 2**14, 2**31, 2**63 - 1, -(2**63), True, False]
FLOATS = [0.0, -0.0, math.nan, math.inf, -math.inf, 1.0, 5e-324]
scalars: st.SearchStrategy[Any] = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.sampled_from(INTS)
    | st.floats()
    | st.sampled_from(FLOATS)
    | texts
    | st.binary(max_size=200)
)
values: st.SearchStrategy[Any] = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(texts, inner, max_size=4)
        | st.dictionaries(st.integers(), inner, max_size=2)
    ),
    max_leaves=12,
)
keys = st.sampled_from(["k", "http.request.method", "é", "k" * 96, "k" * 130]) | st.text(min_size=1, max_size=8)
mappings: st.SearchStrategy[Any] = st.dictionaries(keys, values, max_size=6)


@st.composite
def bounded(draw: st.DrawFn) -> BoundedAttributes:
    """Attributes as the SDK holds them, with its limits applied."""
    return BoundedAttributes(
        maxlen=draw(st.none() | st.integers(0, 5)),
        attributes=draw(mappings),
        immutable=draw(st.booleans()),
        max_value_len=draw(st.none() | st.integers(0, 50)),
    )


attributes: st.SearchStrategy[Any] = mappings | bounded()
times = st.none() | st.integers(0, 2**64 - 1)
trace_states = st.none() | st.dictionaries(
    st.from_regex(r"\A[a-z][a-z0-9]{0,5}\Z"), st.from_regex(r"\A[a-z0-9]{1,6}\Z"), max_size=3
).map(lambda pairs: TraceState(list(pairs.items())))
contexts = st.builds(
    SpanContext,
    st.integers(0, 2**128 - 1),
    st.integers(0, 2**64 - 1),
    st.booleans(),
    st.integers(0, 255).map(TraceFlags),
    trace_states,
)
events = st.builds(Event, texts, st.none() | attributes, st.integers(0, 2**64 - 1))
links = st.builds(Link, contexts, st.none() | attributes)
statuses = st.sampled_from([Status(), Status(StatusCode.OK)]) | st.builds(Status, st.just(StatusCode.ERROR), texts)
schema_urls = st.none() | st.sampled_from(["", "https://opentelemetry.io/schemas/1.37.0"]) | texts


def limited(items: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    lists = st.lists(items, max_size=3)
    return lists | st.builds(BoundedList.from_seq, st.integers(0, 2), lists)


resources = st.builds(Resource, mappings, schema_urls)
scopes = st.builds(InstrumentationScope, texts, st.none() | texts, schema_urls, st.none() | mappings)
# A few of each, so that batches have groups of several records.
few_resources = st.lists(resources, min_size=1, max_size=2)
few_scopes = st.lists(st.none() | scopes, min_size=1, max_size=2)


@st.composite
def span_batches(draw: st.DrawFn) -> list[ReadableSpan]:
    spans = st.builds(
        ReadableSpan,
        name=texts,
        context=contexts,
        parent=st.none() | contexts,
        resource=st.sampled_from(draw(few_resources)),
        attributes=st.none() | attributes,
        events=limited(events),
        links=limited(links),
        kind=st.sampled_from(SpanKind),
        status=st.none() | statuses,
        start_time=times,
        end_time=times,
        instrumentation_scope=st.sampled_from(draw(few_scopes)),
    )
    return draw(st.lists(spans, max_size=5))


@st.composite
def log_batches(draw: st.DrawFn) -> list[Any]:
    @st.composite
    def records(draw: st.DrawFn) -> LogRecord:
        context = draw(st.none() | contexts)
        return LogRecord(
            timestamp=draw(times),
            observed_timestamp=draw(times),
            context=set_span_in_context(NonRecordingSpan(context), Context()) if context else Context(),
            severity_text=draw(st.none() | texts),
            severity_number=draw(st.none() | st.sampled_from(SeverityNumber)),
            body=draw(values),
            attributes=draw(st.none() | attributes),
            event_name=draw(st.none() | texts),
        )

    resource = st.sampled_from(draw(few_resources))
    scope = st.sampled_from(draw(few_scopes))
    limits = st.builds(LogRecordLimits, max_attributes=st.integers(0, 5), max_attribute_length=st.integers(0, 50))
    readable: st.SearchStrategy[Any] = st.builds(ReadableLogRecord, records(), resource, scope)
    return draw(st.lists(readable | st.builds(ReadWriteLogRecord, records(), resource, scope, limits), max_size=5))


# --- the comparison -------------------------------------------------------------------------------------------------


def grouped(request: Any) -> list[tuple[bytes, bytes, str, str, list[bytes]]]:
    """A request without the order of its groups; two groups that are equal on the wire are one.

    Compared as bytes of the same serializer, as nan is not equal to itself.
    """
    groups: dict[tuple[bytes, bytes, str, str], list[bytes]] = {}
    spans = isinstance(request, ExportTraceServiceRequest)
    for of_resource in request.resource_spans if spans else request.resource_logs:
        for of_scope in of_resource.scope_spans if spans else of_resource.scope_logs:
            assert of_resource.HasField("resource") and of_scope.HasField("scope")
            key = (wire(of_resource.resource), wire(of_scope.scope), of_resource.schema_url, of_scope.schema_url)
            records = of_scope.spans if spans else of_scope.log_records
            groups.setdefault(key, []).extend(wire(record) for record in records)
    return sorted((*key, sorted(records)) for key, records in groups.items())


def wire(message: Any) -> bytes:
    encoded: bytes = message.SerializeToString(deterministic=True)
    return encoded


def spans_of(encoded: Sequence[Encoded]) -> Any:
    return ExportTraceServiceRequest.FromString(join(encoded))


def logs_of(encoded: Sequence[Encoded]) -> Any:
    return ExportLogsServiceRequest.FromString(join(encoded))


def the_span(span: Any) -> Any:
    (of_resource,) = spans_of([encode_span(span)]).resource_spans
    return of_resource.scope_spans[0].spans[0]


def the_log(record: Any) -> Any:
    (of_resource,) = logs_of([encode_log(record)]).resource_logs
    return of_resource.scope_logs[0].log_records[0]


def a_span(**fields: Any) -> ReadableSpan:
    return ReadableSpan(**{"name": "n", "context": SpanContext(1, 2, False), "resource": Resource({}), **fields})


def a_log(body: Any = "b", **fields: Any) -> ReadableLogRecord:
    return ReadableLogRecord(LogRecord(body=body, context=Context(), **fields), Resource({}))


many = settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(autouse=True)
def empty_caches() -> Iterator[None]:
    yield
    forget()


def forget() -> None:
    caches: list[dict[Any, Any]] = [
        otlp._shared.texts,
        otlp._shared.groups,
        otlp._shared.groups_by_id,
        otlp._shared.resources_by_id,
    ]
    for cache in (*caches, otlp._shared.short_texts, otlp._shared.others, *otlp._shared.by_type.values()):
        cache.clear()


class Colour(enum.StrEnum):
    RED = "red"


class Number(enum.IntEnum):
    ONE = 1


class TestTheOfficialEncoder:
    @many
    @given(span_batches())
    def test_says_the_same_of_spans(self, batch: list[ReadableSpan]) -> None:
        encoded = [encode_span(span) for span in batch]
        assert grouped(spans_of(encoded)) == grouped(encode_spans(batch))
        # From the caches, too.
        assert [encode_span(span) for span in batch] == encoded

    @many
    @given(log_batches())
    def test_says_the_same_of_logs(self, batch: list[Any]) -> None:
        encoded = [encode_log(record) for record in batch]
        assert grouped(logs_of(encoded)) == grouped(encode_logs(batch))
        assert [encode_log(record) for record in batch] == encoded

    @many
    @given(span_batches())
    def test_needs_no_repair(self, batch: list[ReadableSpan]) -> None:
        """What the official encoder can encode takes the fast path, or the speed would depend on the data."""
        for span in batch:
            otlp._span(span, otlp._shared)

    def test_says_the_same_of_spans_that_the_sdk_made(self) -> None:
        """Limits are the SDK's work; the counts of what it dropped arrive."""
        provider = TracerProvider(
            resource=Resource({"service.name": "s"}),
            span_limits=SpanLimits(max_span_attributes=2, max_events=1, max_links=1, max_event_attributes=1,
                                   max_link_attributes=1, max_attribute_length=3),
            shutdown_on_exit=False,
        )  # fmt: skip
        two: dict[str, Any] = {"a": "long text", "b": [1, 2]}
        with provider.get_tracer("t", "1", "https://schema", {"scope": "attribute"}).start_as_current_span(
            "n",
            attributes={**two, "c": 3},
            links=[Link(SpanContext(3, 4, True), two), Link(SpanContext(5, 6, False), two)],
        ) as span:
            span.add_event("e1", two)
            span.add_event("e2", two)
        readable = span._readable_span()  # type: ignore[attr-defined]
        ours = the_span(readable)
        assert grouped(spans_of([encode_span(readable)])) == grouped(encode_spans([readable]))
        assert (ours.dropped_attributes_count, ours.dropped_events_count, ours.dropped_links_count) == (1, 1, 1)
        assert (ours.events[0].dropped_attributes_count, ours.links[0].dropped_attributes_count) == (1, 1)

    @pytest.mark.parametrize(
        "value",
        [
            Colour.RED,
            Number.ONE,
            type("Text", (str,), {"__str__": lambda self: "other", "encode": lambda self: b"other"})("text"),
            type("Float", (float,), {})(1.5),
            type("Bytes", (bytes,), {})(b"b"),
            bytearray(b"ab"),
            range(3),
            collections.OrderedDict(a=1),
            types.MappingProxyType({"a": [{}, [], "", None]}),
            collections.deque([1, 2]),
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_says_the_same_of_relatives_of_the_plain_types(self, value: Any) -> None:
        batch = [a_log(value), a_log([value]), a_log({"k": value}), a_log(attributes={"k": value})]
        assert grouped(logs_of([encode_log(record) for record in batch])) == grouped(encode_logs(batch))

    @pytest.mark.parametrize("wrap", [lambda inner: [inner], lambda inner: {"k": inner}], ids=["lists", "maps"])
    def test_says_the_same_as_deep_as_a_parser_goes(self, wrap: Any) -> None:
        value: Any = 1
        for _ in range(31):
            value = wrap(value)
        batch = [a_span(attributes={"k": value}, events=[Event("e", {"k": value})])]
        assert grouped(spans_of([encode_span(batch[0])])) == grouped(encode_spans(batch))


class Hostile:
    """Raises wherever it is looked at."""

    def __str__(self) -> str:
        raise RuntimeError

    __repr__ = __len__ = __iter__ = __bool__ = __int__ = __index__ = __str__

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError


class HostileMapping(Mapping[str, Any]):
    def __getitem__(self, key: str) -> Any:
        raise RuntimeError

    def __iter__(self) -> Iterator[str]:
        raise RuntimeError

    def __len__(self) -> int:
        return 1


class Plain:
    def __str__(self) -> str:
        return "plain"


anything: st.SearchStrategy[Any] = (
    values
    | st.text(alphabet=st.characters(), max_size=5)
    | st.integers()
    | st.builds(Hostile)
    | st.builds(HostileMapping)
    | st.builds(Plain)
    | st.dictionaries(st.text() | st.integers() | st.builds(Plain), values, max_size=2)
)


class TestWhatTheOfficialEncoderLoses:
    @pytest.mark.parametrize(
        ("value", "text"),
        [
            ("a\ud800b", "a\\ud800b"),
            ("\udcff" * 100, "\\udcff" * 100),
            (2**63, "9223372036854775808"),
            (-(2**63) - 1, "-9223372036854775809"),
            (10**5000, hex(10**5000)),
            (1j, "1j"),
            (Plain(), "plain"),
            (Hostile(), "<Hostile>"),
            ({1}, "{1}"),
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_a_value_becomes_text(self, value: Any, text: str) -> None:
        assert the_log(a_log(value)).body.string_value == text
        assert the_log(a_log([value])).body.array_value.values[0].string_value == text
        assert the_log(a_log({"k": value})).body.kvlist_value.values[0].value.string_value == text
        (attribute,) = the_log(a_log(attributes={"k": value})).attributes
        assert (attribute.key, attribute.value.string_value) == ("k", text)

    def test_lone_surrogates_are_escaped_wherever_text_is(self) -> None:
        bad, good = "\ud800", "\\ud800"
        encoded = spans_of([
            encode_span(
                a_span(
                    name=bad,
                    attributes={bad: bad},
                    events=[Event(bad, {bad: bad})],
                    status=Status(StatusCode.ERROR, bad),
                    resource=Resource({bad: bad}, bad),
                    instrumentation_scope=InstrumentationScope(bad, bad, bad, {bad: bad}),
                )
            )
        ])  # fmt: skip
        of_resource = encoded.resource_spans[0]
        of_scope = of_resource.scope_spans[0]
        span = of_scope.spans[0]
        assert {span.name, span.attributes[0].key, span.attributes[0].value.string_value, span.events[0].name,
                span.status.message, of_resource.schema_url, of_resource.resource.attributes[0].key,
                of_scope.schema_url, of_scope.scope.name, of_scope.scope.version} == {good}  # fmt: skip
        log = the_log(a_log(bad, severity_text=bad, event_name=bad))
        assert {log.body.string_value, log.severity_text, log.event_name} == {good}

    def test_a_value_within_itself_is_cut(self) -> None:
        endless: list[Any] = [1]
        endless += [endless, endless, {"k": endless}]
        body = the_log(a_log(endless)).body.array_value.values
        assert [body[1].string_value, body[2].string_value] == ["…", "…"]
        assert body[3].kvlist_value.values[0].value.string_value == "…"

    @pytest.mark.parametrize("wrap", [lambda inner: [inner], lambda inner: {"k": inner}], ids=["lists", "maps"])
    @pytest.mark.parametrize("depth", [32, 47, 48, 100, 5000])
    def test_what_is_too_deep_for_a_parser_is_cut(self, wrap: Any, depth: int) -> None:
        """A request that cannot be parsed loses the records of others."""
        value: Any = 1
        for _ in range(depth):
            value = wrap(value)
        ExportTraceServiceRequest.FromString(join([encode_span(a_span(events=[_event({"k": value})]))]))
        ExportLogsServiceRequest.FromString(join([encode_log(a_log(value))]))

    def test_one_bad_field_costs_no_other(self) -> None:
        span = the_span(a_span(name="n", start_time=-5, end_time=1.5, attributes={"a": 1, "b": Hostile(), "c": {2}}))
        assert (span.name, span.start_time_unix_nano, span.end_time_unix_nano) == ("n", 0, 1)
        assert [a.value.WhichOneof("value") for a in span.attributes] == ["int_value", "string_value", "string_value"]

    def test_identifiers_that_are_too_long_keep_their_end(self) -> None:
        context = types.SimpleNamespace(trace_id=2**200 + 1, span_id=2**64 + 2, is_remote=True, trace_state=None)
        span = the_span(a_span(context=context, parent=context))
        assert (span.trace_id[-1], span.span_id[-1], span.parent_span_id[-1], span.flags) == (1, 2, 2, 0x300)

    @many
    @given(st.data())
    def test_no_field_can_hold_what_makes_it_raise(self, data: st.DataObject) -> None:
        def draw() -> Any:
            return data.draw(anything)

        span = types.SimpleNamespace(**{
            name: draw() if data.draw(st.booleans()) else getattr(a_span(), name)
            for name in ("resource", "instrumentation_scope", "context", "parent", "name", "kind", "start_time",
                         "end_time", "attributes", "events", "links", "status", "dropped_attributes",
                         "dropped_events", "dropped_links")
        })  # fmt: skip
        assert len(spans_of([encode_span(span)]).resource_spans) == 1  # type: ignore[arg-type]
        log = types.SimpleNamespace(**{
            name: draw() if data.draw(st.booleans()) else getattr(a_log().log_record, name)
            for name in ("timestamp", "observed_timestamp", "severity_number", "severity_text", "body", "attributes",
                         "trace_id", "span_id", "trace_flags", "event_name")
        })  # fmt: skip
        record = types.SimpleNamespace(
            log_record=log, resource=draw(), instrumentation_scope=draw(), dropped_attributes=draw()
        )
        assert len(logs_of([encode_log(record)]).resource_logs) == 1  # type: ignore[arg-type]

    def test_nothing_at_all_is_still_a_record(self) -> None:
        assert the_span(object()).name == ""
        assert the_log(object()).HasField("body")


def _event(pairs: dict[str, Any]) -> Any:
    """An event that the SDK has not cleaned."""
    return types.SimpleNamespace(name="e", timestamp=1, attributes=pairs, dropped_attributes=0)


class TestJoining:
    @many
    @given(span_batches(), st.integers(0, 5))
    def test_joins_are_concatenable(self, batch: list[ReadableSpan], cut: int) -> None:
        """A request can be split and joined anywhere, without being decoded."""
        encoded = [encode_span(span) for span in batch]
        halves = join(encoded[:cut]) + join(encoded[cut:])
        assert grouped(ExportTraceServiceRequest.FromString(halves)) == grouped(spans_of(encoded))

    def test_records_of_one_resource_and_scope_share_them(self) -> None:
        resources = [Resource({"r": n}) for n in range(2)]
        scopes = [InstrumentationScope(f"s{n}") for n in range(3)]
        batch = [a_span(name=f"{n}", resource=resources[n % 2], instrumentation_scope=scopes[n % 3]) for n in range(12)]
        request = spans_of([encode_span(span) for span in batch])
        assert [len(of_resource.scope_spans) for of_resource in request.resource_spans] == [3, 3]
        assert {
            tuple(span.name for span in scope.spans) for r in request.resource_spans for scope in r.scope_spans
        } == {(str(n), str(n + 6)) for n in range(6)}

    def test_nothing_joined_is_an_empty_request(self) -> None:
        assert join([]) == b""

    def test_groups_survive_being_stored(self) -> None:
        """After a restart, groups are other objects with the same bytes."""
        encoded = [encode_span(a_span(name=f"{n}")) for n in range(3)]
        again = [(Group(bytes(bytearray(g.resource)), bytes(bytearray(g.scope))), record) for g, record in encoded]
        assert join(again) == join(encoded)
        assert len(spans_of(again).resource_spans) == 1

    def test_equal_origins_are_one_group(self) -> None:
        """Tracers are often made for each call, each with a scope of its own."""
        groups = []
        for _ in range(3):
            scope = InstrumentationScope("s", "1")
            groups.append(encode_span(a_span(instrumentation_scope=scope))[0])
            groups.append(encode_log(ReadableLogRecord(LogRecord(context=Context()), Resource({}), scope))[0])
        assert all(group is groups[0] for group in groups)


class TestCaches:
    def test_equal_values_of_different_types_stay_apart(self) -> None:
        for _ in range(2):
            kinds = [
                the_log(a_log(attributes={"k": value})).attributes[0].value.WhichOneof("value")
                for value in (1, True, 1.0, "1", b"1")
            ]
            assert kinds == ["int_value", "bool_value", "double_value", "string_value", "bytes_value"]
        signs = [the_log(a_log(attributes={"k": v})).attributes[0].value.double_value for v in (0.0, -0.0, 0.0)]
        assert [math.copysign(1, sign) for sign in signs] == [1, -1, 1]

    def test_an_id_that_is_used_again_is_no_old_resource(self) -> None:
        for n in range(2000):
            request = spans_of([encode_span(a_span(resource=Resource({"n": n})))])
            assert request.resource_spans[0].resource.attributes[0].value.int_value == n

    def test_memory_is_bounded_whatever_is_sent(self) -> None:
        for n in range(12_000):
            encode_span(
                a_span(
                    name=f"name {n}",
                    attributes={f"key {n % 5000}": f"value {n}", "same": f"{n}", f"n{n % 3000}": n, "big": 10**99 + n},
                    resource=Resource({"n": n, "text": "x" * (n % 7) * 20_000}),
                    instrumentation_scope=InstrumentationScope(f"{n}"),
                    status=Status(StatusCode.ERROR, f"{n}"),
                )
            )
        assert len(otlp._shared.texts) <= otlp._MAX_TEXTS
        assert len(otlp._sizes) + len(otlp._text_sizes) <= 2 * otlp._KEPT_SIZES
        groups: list[dict[Any, Any]] = [otlp._shared.groups, otlp._shared.groups_by_id, otlp._shared.resources_by_id]
        assert max(len(cache) for cache in groups) <= otlp._MAX_GROUPS
        assert sum(len(resource) for _, resource in otlp._shared.resources_by_id.values()) < 16 * 2**20
        for by_key in (otlp._shared.short_texts, otlp._shared.others, *otlp._shared.by_type.values()):
            assert len(by_key) <= otlp._MAX_KEYS
            kept = [len(of_key) for of_key in by_key.values() if isinstance(of_key, dict)]
            assert sum(kept) <= otlp._MAX_ALL_VALUES
            assert max(kept, default=0) <= otlp._MAX_VALUES

    def test_threads_share_them(self) -> None:
        def work(start: int) -> None:
            for n in range(start, start + 3000):
                span = a_span(name=f"{n}", attributes={f"k{n % 1500}": f"{n}", "n": n}, resource=Resource({"r": n}))
                request = spans_of([encode_span(span)])
                made = request.resource_spans[0].scope_spans[0].spans[0]
                if (made.name, made.attributes[1].value.int_value) != (f"{n}", n):
                    wrong.append(n)

        wrong: list[int] = []
        threads = [threading.Thread(target=work, args=(1000 * n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []


def test_encoding_imports_neither_the_sdk_nor_protobuf() -> None:
    code = (
        "import sys, otelweir.pipeline.spool.otlp; "
        "sys.exit(any(name.startswith(('opentelemetry.sdk', 'google.protobuf')) for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0
