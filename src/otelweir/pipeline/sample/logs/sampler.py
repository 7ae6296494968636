"""The log sampler: which pattern a record belongs to, and whether to keep it.

A record is identified by the best of three grades: the format string that its call carries, the template that its
source line holds (`source.py`), the key of its text (`text.py`). What a call site gives is looked up once; afterwards
a record costs two dict look-ups and the decision of its stream (`stream.py`).
"""

from __future__ import annotations

import ast
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from random import random as _random
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any, Final

from otelweir import errors
from otelweir.pipeline.sample.logs import source
from otelweir.pipeline.sample.logs.budget import fair_shares
from otelweir.pipeline.sample.logs.pattern import Pattern, pattern_of
from otelweir.pipeline.sample.logs.rules import ALWAYS_KEPT, Rules
from otelweir.pipeline.sample.logs.stream import GIL, Stream
from otelweir.pipeline.sample.logs.text import OVERFLOW, TextPatterns
from otelweir.signals import Severity, Verdict, severity_number, severity_of

if TYPE_CHECKING:
    from otelweir.pipeline.sample.logs.settings import LogSamplingSettings

MAX_SITES: Final = 20_000
"""Call sites remembered; beyond, all are forgotten and looked up again."""

MAX_STREAMS: Final = 1024
"""Streams remembered for one call site, which may log to many loggers."""

MAX_MESSAGES: Final = 64
"""Format strings of one call site; beyond, they are made of variable text and the text's key decides."""

TICK_S: Final = 1.0
"""How often rates are fitted to the budget."""

LEAST_RATE: Final = 1e-4
"""A budget never lowers a rate further: what is never kept cannot be counted by weight."""

IDLE_S: Final = 900.0
"""Time without a record after which a stream is forgotten. Its id does not change when it comes back."""

RETIRED_S: Final = 60.0
"""Time for which a forgotten stream still reports: a thread may have looked it up just before."""

KEPT_UNSEEN: Final[Mapping[str, Any]] = {}
"""The verdict where sampling is off."""


_DIGITS: Final = frozenset("0123456789")

_ANY: Final = object()
"""Stands for a message that does not matter."""


class _Site:
    """A call site: how its records are identified, and the streams found so far.

    Attributes:
        templates: Of the messages that its source may make, the most literal first.
        origin: Where it is, as part of the pattern.
        code: Of its function, kept alive, so that its id is not used again; None when it is not known.
        at: The instruction in the code, or the line in the file.
        path: The file, where the line tells the site; None where the instruction does.
        by_caller: Whether it is a wrapper's caller, and only passes the message on.
        sure: Whether every record has the one message that the source tells.
        shared: Whether others are on the same line, so that a record's line does not tell it.
        passed: The messages of which the function's caller knows a part.
        callers: The sites by the instruction that calls the function, if there are such messages.
        streams: By (message, level, logger), by (template, level, logger) where the message has values in it, or by
            (level, logger) where it does not matter.
    """

    __slots__ = (
        "at",
        "by_caller",
        "by_text",
        "callers",
        "code",
        "level",
        "logger",
        "message",
        "messages",
        "origin",
        "passed",
        "path",
        "shared",
        "stream",
        "streams",
        "sure",
        "templates",
    )
    stream: Stream

    def __init__(self, origin: tuple[str, str], code: CodeType | None, at: int, path: str | None = None) -> None:
        self.origin = origin
        self.code = code
        self.at = at
        self.path = path
        self.shared = self.sure = False
        self.templates: tuple[source.SourceTemplate, ...] = ()
        self.passed: list[source.Parts] = []
        self.callers: dict[tuple[int, int], _Site] | None = None
        self.by_text = self.by_caller = False
        self.messages: set[str] = set()
        self.streams: dict[tuple[Any, ...], Stream] = {}
        self.level = -1
        self.logger = ""
        self.message: object = None

    def says(self, messages: list[source.Parts], *, by_caller: bool = False) -> None:
        """Take over what the source says about the messages."""
        self.by_caller = by_caller
        self.sure = len(messages) == 1
        self.passed = [message for message in messages if source.needs_caller(message)]
        self.callers = {} if self.passed else None
        found = {
            template: None
            for message in messages
            if (template := source.template_of(message, by_caller=by_caller)) is not None
        }
        self.templates = tuple(sorted(found, key=lambda template: -len(template.template)))

    def remember(self, level: int, logger: str, message: object, stream: Stream) -> None:
        """Make this the stream that is looked at first.

        Read and written in straight lines, without a call in between: under a GIL nobody sees half of it. Without one
        there is no such short cut.
        """
        if GIL:
            self.level, self.logger, self.message, self.stream = level, logger, message, stream


@dataclass(frozen=True, slots=True)
class Rollup:
    """The exact counts of one pattern and severity since the last roll-up.

    Attributes:
        first: Time of the first record, in seconds of the sampler's clock.
        last: Time of the last record.
    """

    pattern: Pattern
    severity: Severity
    seen: int
    kept: int
    first: float
    last: float


class LogSampler:
    """Decides on log records. Safe to use from many threads; never raises into the caller.

    Args:
        rules: The policy.
        clock: Monotonic time in seconds.
        random: A number from 0 to 1.
        max_patterns: How many patterns are told apart; the rest share one.
        spike_factor: How many times its usual count makes a pattern's window a spike.
    """

    def __init__(
        self,
        rules: Rules,
        *,
        clock: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = _random,
        max_patterns: int = 10_000,
        spike_factor: float = 10.0,
    ) -> None:
        self._clock = clock
        self._random = random
        self._max_patterns = max_patterns
        self._spike_factor = spike_factor
        self._lock = threading.RLock()
        self._calls: dict[tuple[int, int], _Site] = {}
        self._lines: dict[tuple[str, int], _Site] = {}
        self._by_text: dict[tuple[str, int, str], Stream] = {}
        self._by_event: dict[tuple[str, Severity, str], Stream] = {}
        self._streams: dict[tuple[str, Severity, int, str | None], Stream] = {}
        self._retired: list[tuple[float, Stream]] = []
        self._known: set[str] = set()
        self._text = TextPatterns(max_patterns).find
        self._tick_at = float("inf")
        self._ticked = 0.0
        self._totals: dict[tuple[Severity, str], int] = {}
        self.apply(rules)

    @classmethod
    def of(cls, settings: LogSamplingSettings) -> LogSampler:
        """The sampler that the settings alone make."""
        return cls(Rules.of(settings), max_patterns=settings.log_max_patterns, spike_factor=settings.log_spike_factor)

    def __repr__(self) -> str:
        return f"<LogSampler {self.rules.mode} {len(self._known)} patterns, {len(self._streams)} streams>"

    def apply(self, rules: Rules) -> None:
        """Take over a policy; counts go on."""
        with self._lock:
            self.rules = rules
            self._off = rules.mode == "off"
            # Which loggers a rule tells apart has changed: every stream is found anew, and old ones report once more.
            now = self._clock()
            self._retire(list(self._streams), now)
            self._ticked = now
            self._tick_at = now + TICK_S if rules.budget_per_s is not None else float("inf")

    # --- decisions, the hot path first

    def call(self, logger: str, levelno: int, msg: object, args: Any, code: CodeType, instruction: int) -> Verdict:
        """Decide on a logging call that has not made a record yet.

        Args:
            logger: Its logger's name.
            levelno: Its level in Python's `logging`.
            msg: The message or format string.
            args: The arguments; empty for none.
            code: The code of the calling frame.
            instruction: The `f_lasti` of the calling frame.
        """
        if self._off:
            return KEPT_UNSEEN
        site = self._calls.get((id(code), instruction))
        if site is not None:
            # The same site mostly logs the same way.
            if site.level == levelno and site.logger is logger and (site.message is msg or site.message is _ANY):
                stream = site.stream
                now = self._clock()
                if now >= self._tick_at:
                    self._tick(now)
                return stream.decide(now)
        else:
            site = self._new_call(code, instruction)
        return self._decide_site(site, logger, levelno, msg, args)

    def site(
        self, logger: str, levelno: int, msg: object, args: Any, pathname: str | None, lineno: int, function: str | None
    ) -> Verdict:
        """Decide on a record that is already made.

        Args:
            logger: Its logger's name.
            levelno: Its level in Python's `logging`.
            msg: The message or format string.
            args: The arguments; empty for none.
            pathname: The file of the call, or None.
            lineno: The line of the call.
            function: The function of the call, or None.
        """
        if self._off:
            return KEPT_UNSEEN
        where = (pathname or "", lineno)
        site = self._lines.get(where)
        if site is not None:
            # The same site mostly logs the same way.
            if site.level == levelno and site.logger is logger and (site.message is msg or site.message is _ANY):
                stream = site.stream
                now = self._clock()
                if now >= self._tick_at:
                    self._tick(now)
                return stream.decide(now)
        else:
            site = self._new_line(where[0], lineno, function)
        return self._decide_site(site, logger, levelno, msg, args)

    def text(self, logger: str, severity: int, message: str, event_name: str | None = None) -> Verdict:
        """Decide on a record of which only the text is known.

        Args:
            logger: The name of its scope.
            severity: Its OpenTelemetry severity number, 0 to 24.
            message: Its rendered body.
            event_name: Its event name, if it is an event.
        """
        if self._off:
            return KEPT_UNSEEN
        band = severity_of(severity)
        if event_name is not None:
            key = (event_name, band, logger)
            cache = self._by_event
            stream = cache.get(key)
            if stream is None:
                stream = self._stream(pattern_of(event_name, "event"), band, logger, event_name)
                self._remember(cache, key, stream)
        else:
            stream = self._text_stream(message, band, severity, logger)
        now = self._clock()
        if now >= self._tick_at:
            self._tick(now)
        return stream.decide(now)

    # --- identity

    def _decide_site(self, site: _Site, logger: str, levelno: int, msg: object, args: Any) -> Verdict:
        """Find the stream of a record, remember it where that is safe, decide."""
        stream = None
        by_line = site
        if site.shared or site.callers is not None:
            # A constant says as much as its caller, whose frame takes longer to find.
            stream = site.streams.get((msg, levelno, logger)) if isinstance(msg, str) else None
            if stream is None:
                site = self._on_stack(site)
        if stream is None and not site.by_text:
            stream = site.streams.get((levelno, logger))
            if stream is not None:
                site.remember(levelno, logger, _ANY, stream)
            elif isinstance(msg, str):
                stream = site.streams.get((msg, levelno, logger))
                if stream is not None:
                    site.remember(levelno, logger, msg, stream)
                    if by_line is not site:
                        self._remember(by_line.streams, (msg, levelno, logger), stream, MAX_STREAMS)
        if stream is None:
            stream = self._find(site, logger, levelno, msg, args)
        now = self._clock()
        if now >= self._tick_at:
            self._tick(now)
        return stream.decide(now)

    def _find(self, site: _Site, logger: str, levelno: int, msg: object, args: Any) -> Stream:
        """The stream of a record, by the best grade of identity that it has."""
        number = severity_number(levelno)
        band = severity_of(number)
        pattern: Pattern | None = None
        key: tuple[Any, ...] | None = None
        format_string = msg if isinstance(msg, str) else None
        if format_string is None:
            # A message object with its own format string, as {}-style adapters make them.
            if (literal := source.literal_message(msg)) is not None:
                pattern = pattern_of(literal, *site.origin)
            elif not isinstance(msg, (dict, list, tuple)):
                format_string = _rendered(msg, ())  # such as a translation that waits
        if format_string is None or pattern is not None:
            pass
        elif (template := _fitting(site.templates, format_string)) is not None:
            known = (template, levelno, logger)
            if (stream := site.streams.get(known)) is not None:
                return stream
            text = source.percent_template(template.template) if args else template.template
            if site.by_caller and template.constant and not args:
                text = self._text(text).template  # a message's number is no more than a value to a wrapper
            pattern = pattern_of(text, *site.origin)
            if template.constant and template.template == msg:
                key = (msg, levelno, logger)
            else:
                key = (levelno, logger) if site.sure else known
        elif args:
            # A format string that was made elsewhere. Digits in it are values, as a connection's number in a prefix.
            text = source.percent_template(format_string)
            if site.by_text or not _DIGITS.isdisjoint(text):
                pattern = pattern_of(self._text(text).template, *site.origin)
            else:
                pattern, key = pattern_of(text, *site.origin), (format_string, levelno, logger)
                site.messages.add(format_string)
                site.by_text = len(site.messages) > MAX_MESSAGES
        if pattern is None:
            return self._text_stream(_rendered(msg, args), band, number, logger)
        stream = self._stream(pattern, band, logger, None)
        if site.by_text:
            site.level = -1
            site.streams = {}
            site.messages = set()
        elif key is not None and site.callers is None and not site.shared:
            self._remember(site.streams, key, stream, MAX_STREAMS)
        return stream

    def _text_stream(self, message: str, band: Severity, severity: int, logger: str) -> Stream:
        pattern = self._text(message)
        key = (pattern.id, severity, logger)
        cache = self._by_text  # a policy that comes meanwhile leaves it behind, with what is put into it
        stream = cache.get(key)
        if stream is None:
            stream = self._stream(pattern, band, logger, None)
            self._remember(cache, key, stream)
        return stream

    def _stream(self, pattern: Pattern, severity: Severity, logger: str, event_name: str | None) -> Stream:
        """The stream of a pattern; made when there is none."""
        rules = self.rules
        key = (pattern.id, severity, rules.logger_key(logger), event_name)
        stream = self._streams.get(key)
        if stream is not None:
            return stream
        with self._lock:
            new = pattern.id not in self._known
            if new and len(self._known) >= self._max_patterns and pattern.id != OVERFLOW.id:
                errors.warn(errors.TOO_MANY_PATTERNS, f"{self._max_patterns} log patterns are in use")
                return self._stream(OVERFLOW, severity, logger, event_name)
            self._known.add(pattern.id)
            stream = self._streams.get(key)
            if stream is None:
                always = "error" if severity in ALWAYS_KEPT else None
                ruling = rules.ruling(pattern.id, pattern.template, severity, logger, event_name)
                if event_name is not None and ruling.rule is None:
                    always = always or "event"
                stream = self._streams[key] = Stream(
                    pattern,
                    severity,
                    ruling,
                    always=always,
                    dry=rules.mode == "dry-run",
                    new=new,
                    window_s=rules.window_s,
                    spike_factor=self._spike_factor,
                    start=self._random(),
                )
            return stream

    def _new_call(self, code: CodeType, instruction: int) -> _Site:
        """The site of an instruction."""
        site = _Site(source.origin_of(code.co_filename, code.co_qualname), code, instruction)
        frame = _frame_of(site)
        call, scope = _read(code, instruction, frame)
        if call is not None:
            site.says(source.messages_of_call(call, scope))
        self._remember(self._calls, (id(code), instruction), site, MAX_SITES)
        return site

    def _new_line(self, path: str, line: int, function: str | None) -> _Site:
        """The site of a line."""
        site = _Site(("", ""), None, line, path)
        frame = _frame_of(site)
        if frame is not None:
            site.code = frame.f_code
            site.origin = source.origin_of(path, frame.f_code.co_qualname)
            call, scope = _read(frame.f_code, frame.f_lasti, frame)
        else:
            call = source.call_at(path, line)
            scope = source.Scope(source.lines_of(path), line)
            known = function is not None and (function.startswith("<") or function in scope.names[-1:])
            site.origin = source.origin_of(path, ".".join(scope.names) if known else function)
        site.shared = source.ambiguous(path, line)
        if call is not None and not site.shared:
            site.says(source.messages_of_call(call, scope))
        self._remember(self._lines, (path, line), site, MAX_SITES)
        return site

    def _on_stack(self, site: _Site) -> _Site:
        """The site that knows the message, where the line or the function does not tell.

        Several calls may share a line; then the instruction tells which one it is. A function that passes on its
        parameter is a wrapper; then its caller tells what the message is. The pattern's origin stays the wrapper's.
        """
        frame = _frame_of(site)
        if frame is None:  # a record that another thread or process made
            return site
        if site.shared:
            code = frame.f_code
            site = self._calls.get((id(code), frame.f_lasti)) or self._new_call(code, frame.f_lasti)
        while site.callers is not None and (caller := frame.f_back) is not None:
            key = (id(caller.f_code), caller.f_lasti)
            known = site.callers.get(key)
            if known is None:
                call, scope = _read(caller.f_code, caller.f_lasti, caller)
                known = _Site(site.origin, caller.f_code, caller.f_lasti)
                known.says(source.messages_passed(site.passed, call, frame.f_code, scope), by_caller=True)
                known.templates = (*known.templates, *(each for each in site.templates if each not in known.templates))
                known.sure = known.sure and len(known.templates) == 1
                self._remember(site.callers, key, known, MAX_STREAMS)
            site, frame = known, caller
        return site

    def _remember(self, cache: dict[Any, Any], key: Any, value: Any, most: int | None = None) -> None:
        """Add to a cache that is emptied when it is full."""
        with self._lock:
            if len(cache) >= (most or 4 * self._max_patterns):
                cache.clear()
            cache[key] = value

    # --- the budget

    def _tick(self, now: float) -> None:
        """Fit the rates to the budget."""
        with self._lock:
            budget = self.rules.budget_per_s
            if now < self._tick_at or budget is None:  # another thread was faster, or the policy changed
                return
            passed = now - self._ticked
            self._ticked, self._tick_at = now, now + TICK_S
            left = budget
            demands: dict[int, float] = {}
            beyond: dict[int, tuple[Stream, float]] = {}
            for stream in self._streams.values():
                came = (stream.seen - stream.ticked_seen) / passed
                stream.ticked_seen = stream.seen
                # Half the past: a burst counts at once, and a pause does not open the gate at once.
                stream.usual_per_s = per_s = max(came, (came + stream.usual_per_s) / 2)
                first = min(per_s, stream.ruling.first / self.rules.window_s)
                left -= first
                wanted = (per_s - first) * stream.ruling.rate
                if stream.ruling.rate >= 1.0 and stream.severity in ALWAYS_KEPT:
                    left -= wanted
                elif wanted > 0:
                    demands[id(stream)] = wanted
                    beyond[id(stream)] = (stream, per_s - first)
                elif stream.rate < stream.ruling.rate:
                    stream.set_rate(stream.ruling.rate, stream.reason)
            for key, share in fair_shares(demands, max(0.0, left)).items():
                stream, per_s = beyond[key]
                rate = min(stream.ruling.rate, max(LEAST_RATE, share / per_s))
                if abs(rate - stream.rate) > 0.02 * stream.rate:
                    stream.set_rate(rate, "budget" if rate < stream.ruling.rate else stream.reason)

    # --- counts

    def rollups(self) -> list[Rollup]:
        """The counts of every pattern and severity that had records since the last call, largest first."""
        with self._lock:
            found: dict[tuple[str, Severity], Rollup] = {}
            for stream in self._reporting():
                seen, kept = stream.seen, stream.kept
                new_seen, new_kept = seen - stream.reported_seen, kept - stream.reported_kept
                if not new_seen:
                    continue
                first, last = stream.began or stream.last, stream.last
                stream.reported_seen, stream.reported_kept, stream.began = seen, kept, 0.0
                for decision, count in (("keep", new_kept), ("drop", new_seen - new_kept)):
                    total = (stream.severity, decision)
                    self._totals[total] = self._totals.get(total, 0) + count
                key = (stream.pattern.id, stream.severity)
                same = found.get(key)
                if same is not None:
                    new_seen, new_kept = new_seen + same.seen, new_kept + same.kept
                    first, last = min(first, same.first), max(last, same.last)
                found[key] = Rollup(stream.pattern, stream.severity, new_seen, new_kept, first, last)
            self._forget_idle()
            return sorted(found.values(), key=lambda rollup: -rollup.seen)

    def counts(self) -> Mapping[tuple[Severity, str], int]:
        """Records so far in this process, by severity and decision (`keep`, `drop`)."""
        with self._lock:
            totals = dict(self._totals)
            for stream in self._reporting():
                kept = stream.kept - stream.reported_kept
                seen = stream.seen - stream.reported_seen
                for decision, count in (("keep", kept), ("drop", seen - kept)):
                    if count:
                        key = (stream.severity, decision)
                        totals[key] = totals.get(key, 0) + count
            return totals

    def after_fork(self) -> None:
        """In the child: the parent reports what was counted so far, and no lock is held by a thread that is gone."""
        self._lock = threading.RLock()
        self._totals = {}
        for stream in self._reporting():
            stream.begin_anew(self._random())

    def _reporting(self) -> Iterator[Stream]:
        yield from list(self._streams.values())
        for _, stream in self._retired:
            yield stream

    def _forget_idle(self) -> None:
        """Forget the streams that had no record for long, and their patterns."""
        now = self._clock()
        self._retired = [(at, stream) for at, stream in self._retired if now - at < RETIRED_S]
        idle = [key for key, stream in self._streams.items() if now - stream.last > IDLE_S]
        if idle:
            self._retire(idle, now)
            self._known = {stream.pattern.id for stream in self._streams.values()}
            self._text = TextPatterns(self._max_patterns).find

    def _retire(self, keys: list[tuple[str, Severity, int, str | None]], now: float) -> None:
        """Let nobody find these streams any more; they report what they still get."""
        self._retired += [(now, self._streams.pop(key)) for key in keys]
        self._calls, self._lines, self._by_text, self._by_event = {}, {}, {}, {}


def _rendered(msg: object, args: Any) -> str:
    try:
        text = str(msg)
        return text % args if args else text
    except Exception:  # noqa: BLE001 - a message that cannot be rendered still has a pattern
        return msg if isinstance(msg, str) else type(msg).__name__


def _fitting(templates: tuple[source.SourceTemplate, ...], message: str) -> source.SourceTemplate | None:
    """The template of a message, among those that its source may make."""
    for template in templates:
        if template.matches(message):
            return template
    # Not the whole of it: an adapter has put something before it.
    for template in templates:
        if template.within(message):
            return template
    return None


def _frame_of(site: _Site) -> FrameType | None:
    """The frame that is at a site right now, in this thread."""
    frame: FrameType | None = sys._getframe(2)
    code, at, path = site.code, site.at, site.path
    while frame is not None:
        if path is None:
            if frame.f_code is code and frame.f_lasti == at:
                return frame
        elif frame.f_lineno == at and frame.f_code.co_filename == path:
            return frame
        frame = frame.f_back
    return None


def _read(code: CodeType, instruction: int, frame: FrameType | None) -> tuple[ast.Call | None, source.Scope]:
    """The call that an instruction makes, and where it stands."""
    module = frame.f_globals if frame is not None else None
    call = source.call_of(code, instruction, module)
    line = frame.f_lineno if frame is not None else code.co_firstlineno
    return call, source.Scope(source.lines_of(code.co_filename, module), line, code)
