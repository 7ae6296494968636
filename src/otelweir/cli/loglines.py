"""Log records from the lines of a log file, in the formats that are common around Python.

A line is taken apart into time, severity, logger and message when its beginning has one of these forms:

- JSON objects, one a line, as structlog, python-json-logger, pino, the OpenTelemetry collector and Google Cloud write
  them; of Docker's json-file the text in `log` is taken apart again;
- `2024-05-01 12:00:00,123 INFO app.http: message`, with `T`, `/`, time zones, brackets, and the parts in any order that
  `logging`, loguru, uvicorn, gunicorn and celery know, and without the time: `INFO:app.http:message`, `[INFO] message`;
- syslog: `May  1 12:00:00 host app[123]: message`, with or without `<13>` before it;
- access logs: `127.0.0.1 - - [01/May/2024:12:00:00 +0000] "GET / HTTP/1.1" 200 2`;
- `key=value` lines with `level=` and `msg=`;
- klog and absl: `I0501 12:34:56.789012 1 file.go:42] message`.

Lines that go on (indented ones, tracebacks) belong to the record before. What stays unknown is severity info.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from otelweir.signals import severity_number

LONGEST_LINE: Final = 2**16
"""What is read of a line, in bytes."""

INFO: Final = 9
ERROR: Final = 17

MESSAGE_KEYS: Final = ("message", "msg", "body", "event", "log", "text", "textPayload", "jsonPayload")
"""Where a JSON line may have its message; in `jsonPayload`, below the same keys again."""

_LEVELS: Final = {
    "TRACE": 1,
    "FINEST": 1,
    "DEBUG": 5,
    "FINE": 5,
    "INFO": 9,
    "INFORMATION": 9,
    "SUCCESS": 9,
    "NOTICE": 10,
    "WARN": 13,
    "WARNING": 13,
    "ERROR": 17,
    "ERR": 17,
    "EXCEPTION": 17,
    "SEVERE": 17,
    "CRITICAL": 21,
    "CRIT": 21,
    "FATAL": 21,
    "ALERT": 21,
    "PANIC": 21,
    "EMERG": 21,
    "EMERGENCY": 21,
}

# Pri of syslog, modulo 8: emergency, alert, critical, error, warning, notice, informational, debug.
_SYSLOG: Final = (21, 21, 21, 17, 13, 10, 9, 5)

_LEVEL: Final = "|".join(sorted(_LEVELS, key=len, reverse=True))
_MONTHS: Final = dict(
    zip("Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(), range(1, 13), strict=True)  # noqa: SIM905
)

_TIME: Final = re.compile(
    r"""\s*[\[(]?(?:
        (?P<date>\d{4}[-/]\d\d[-/]\d\d)[T_ ]+(?P<clock>\d\d:\d\d:\d\d)(?:[.,](?P<part>\d{1,9}))?
            \s?(?P<zone>Z|[-+]\d\d:?\d\d)?
        | (?:(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)\s)?
            (?P<month>Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)\s+(?P<day>\d{1,2})\s(?P<clock2>\d\d:\d\d:\d\d)
            (?:\.(?P<part2>\d{1,9}))?(?:\s(?P<year>\d{4}))?
        | (?P<day3>\d\d)/(?P<month3>Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)/(?P<year3>\d{4})[:\s]
            (?P<clock3>\d\d:\d\d:\d\d)(?:\s[-+]\d{4})?
        | (?P<clock4>\d\d:\d\d:\d\d)(?:[.,](?P<part4>\d{1,9}))?
    )(?!\d)[\])]?""",
    re.VERBOSE | re.ASCII,
)
_ACCESS_TIME: Final = re.compile(
    r"\S+ \S+ \S+ \[(\d\d)/([A-Z][a-z]{2})/(\d{4}):(\d\d:\d\d:\d\d) ([-+]\d{4})\]\s*", re.ASCII
)
# After the time and before the level: `[123]`, `(main)`, `42`, `app.http -`, `host |`, `app:`, and one word as it is.
# More than one would be a sentence that speaks of an error.
_WORD: Final = r"[\w.$/@-]{1,80}"
_BEFORE_LEVEL: Final = (
    r"(?:[\s:,|-]*(?:\[[^\[\]]{1,60}\]|\([^()]{1,60}\)|\d+(?=\s)|(?P<logger>[\w.$/@-]{1,80})(?=\s+[|-]\s|[:,])))"
    rf"{{0,4}}?(?:[\s:,|-]*(?P<word>{_WORD})(?=\s))?"
)
_UPPER_LEVEL: Final = rf"[\s:,|-]*[\[(<]?(?P<level>{_LEVEL})(?![\w=])\s*[\])>]?(?:/[\w-]+\])?(?P<rest>.*)"
_HEAD: Final = re.compile(_BEFORE_LEVEL + _UPPER_LEVEL, re.DOTALL)
_BARE_HEAD: Final = re.compile(_UPPER_LEVEL, re.DOTALL)
_LOWER_HEAD: Final = re.compile(rf"\s*[\[(<](?P<level>{_LEVEL})\s*[\])>](?P<rest>.*)", re.DOTALL | re.IGNORECASE)
_AFTER_LEVEL: Final = re.compile(
    r"""[\s:|,-]*(?:
        (?<=:)(?P<basic>[\w.-]+):(?=\S|$)                                   # INFO:app.http:message
        | \[\d+\]\s*
        | \[(?P<bracketed>[A-Za-z_][\w.-]*)\][\s:|-]*                        # INFO [app.http] message
        | (?P<loguru>[\w.]+:[\w<>]+:\d+)\s+-\s+                              # INFO | app:main:12 - message
        | (?P<dashed>[A-Za-z_][\w.]*)\s+-\s+                                 # INFO - app.http - message
        | (?P<dotted>[a-z_][\w-]*(?:\.[\w-]+)*):\s+                          # INFO app.http: message
    )?""",
    re.VERBOSE | re.ASCII,
)
_SYSLOG_HEAD: Final = re.compile(r"\s+(?P<host>[\w.:-]+)\s+(?P<app>[\w./-]+)(?:\[\d+\])?:\s*")
_KEY_LEVEL: Final = re.compile(rf"\b(?:level|lvl|severity)=\"?({_LEVEL})\b", re.IGNORECASE)
_KEY_TIME: Final = re.compile(r"\b(?:time|ts|timestamp)=\"?([^\s\"]+)")
_KEY_MESSAGE: Final = re.compile(r"\b(?:msg|message|event)=(?:\"((?:[^\"\\]|\\.)*)\"|(\S+))")
_PID: Final = re.compile(r"[\s:|-]*\[\d+\]\s*")

_KLOG: Final = re.compile(
    r"(?P<level>[IWEF])(?P<month>\d\d)(?P<day>\d\d) (?P<clock>\d\d:\d\d:\d\d(?:\.\d{1,9})?)\s+\d+ "
    r"(?P<file>[^\s:\]]+):\d+\] ?",
    re.ASCII,
)
_KLOG_LEVELS: Final = {"I": 9, "W": 13, "E": 17, "F": 21}

_STREAMS: Final = ("stdout", "stderr")

_COLOUR: Final = re.compile(r"\x1b\[[0-9;]*m")

_TRACEBACK: Final = "Traceback (most recent call last):"
_GOES_ON: Final = (
    "The above exception was the direct cause",
    "During handling of the above exception",
    "Caused by: ",
    "... ",
)


@dataclass(slots=True)
class LogRecord:
    """One record of a log file.

    Attributes:
        message: Its first line, without time, level and logger.
        severity: OpenTelemetry's severity number; info where none was found.
        understood: Whether a severity was found.
        logger: Empty where none was found.
        event: The event name, if it is an event.
        time: Seconds since 1970, or since some other point for forms without a date; None where none was found.
        lines: How many lines it has.
        no_message: Whether it is a JSON object in which no message was found; the message is then the whole line.
    """

    message: str
    severity: int = INFO
    understood: bool = False
    logger: str = ""
    event: str | None = None
    time: float | None = None
    lines: int = 1
    no_message: bool = False


def records(lines: Iterable[str]) -> Iterator[LogRecord]:
    """The records of a log file, each once its last line is read."""
    record: LogRecord | None = None
    in_traceback = False
    for raw in lines:
        text, written = _unwrapped(raw)
        line = _COLOUR.sub("", text.rstrip("\r\n"))
        traceback = line.startswith(_TRACEBACK)
        if not line.strip() or traceback or in_traceback or line[0] in " \t" or line.startswith(_GOES_ON):
            # The line after the indented ones of a traceback names the exception and ends it.
            in_traceback = traceback or (in_traceback and (not line.strip() or line[0] in " \t"))
            if record is not None:
                record.lines += 1
            elif line.strip():
                record = LogRecord(line.strip(), time=written)
            if traceback and record is not None and not record.understood:
                record.severity, record.understood = ERROR, True
            continue
        if record is not None:
            yield record
        record = record_of(line)
        if written is not None:
            record.time = written  # its own may have no date, or no zone
    if record is not None:
        yield record


def _unwrapped(line: str) -> tuple[str, float | None]:
    """What a program wrote, and when, of a line of Docker's json-file; any other line as it is."""
    if line.startswith("{") and '"log"' in line and '"stream"' in line:
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            return line, None
        if isinstance(entry, dict) and isinstance(entry.get("log"), str) and entry.get("stream") in _STREAMS:
            return entry["log"], _time_of(entry.get("time"))
    return line, None


def record_of(line: str) -> LogRecord:
    """The record that a line begins."""
    if line.startswith("{") and (found := _json(line)):
        return found
    if (level := _KEY_LEVEL.search(line)) and (message := _KEY_MESSAGE.search(line)):
        time = _KEY_TIME.search(line)
        text = message[1] if message[1] is not None else message[2]
        return LogRecord(text, _LEVELS[level[1].upper()], True, time=_time_of(time[1]) if time else None)
    priority = re.match(r"<(\d{1,3})>(?:1 )?", line)
    body = line[priority.end() :] if priority else line
    record = _klog(body) or _access(body) or _text(body)
    if priority and not record.understood:
        record.severity, record.understood = _SYSLOG[int(priority[1]) % 8], True
    return record


def _klog(line: str) -> LogRecord | None:
    found = _KLOG.match(line)
    if not found:
        return None
    time = _time_of(f"2000-{found['month']}-{found['day']}T{found['clock']}")
    return LogRecord(line[found.end() :], _KLOG_LEVELS[found["level"]], True, found["file"], time=time)


def _access(line: str) -> LogRecord | None:
    found = _ACCESS_TIME.match(line)
    if not found or found[2] not in _MONTHS:
        return None
    day = f"{found[3]}-{_MONTHS[found[2]]:02}-{found[1]}"
    return LogRecord(line[found.end() :], time=_time_of(f"{day}T{found[4]}{found[5]}"), understood=True)


def _text(line: str) -> LogRecord:
    stamp = _TIME.match(line)
    rest = line[stamp.end() :] if stamp else line
    record = LogRecord(line, time=_time(stamp) if stamp else None)
    head = (_HEAD if stamp else _BARE_HEAD).match(rest) or _LOWER_HEAD.match(rest)
    if head:
        record.severity, record.understood = _LEVELS[head["level"].upper()], True
        before = head.groupdict().get("logger") or head.groupdict().get("word")
        rest = head["rest"]
        after = _AFTER_LEVEL.match(rest)
        names = [name for name in after.groups() if name] if after else []
        record.logger = (names[0] if names else before or "").partition(":")[0]
        rest = rest[after.end() :] if after else rest
    elif stamp and (syslog := _SYSLOG_HEAD.match(rest)):
        record.logger = syslog["app"]
        rest = rest[syslog.end() :]
        inner = _LOWER_HEAD.match(rest) or re.match(rf"(?P<level>{_LEVEL})\b(?P<rest>.*)", rest)
        if inner:
            record.severity, record.understood = _LEVELS[inner["level"].upper()], True
            rest = inner["rest"].lstrip(" :-|")
    if pid := _PID.match(rest):
        rest = rest[pid.end() :]
    # What separates the head from the message does not belong to it; a message without a head stays as it is.
    record.message = rest.strip(" \t").lstrip("|:").lstrip().removeprefix("- ").removeprefix("] ") or line.strip()
    return record


def _time(found: re.Match[str]) -> float | None:
    if found["date"]:
        zone = found["zone"] or ""
        return _time_of(f"{found['date'].replace('/', '-')}T{found['clock']}.{found['part'] or 0}{zone}")
    if found["month3"]:
        day = f"{found['year3']}-{_MONTHS[found['month3']]:02}-{found['day3']}"
        return _time_of(f"{day}T{found['clock3']}")
    if found["month"]:
        # Without a year, a leap year: 29 February exists.
        day = f"{found['year'] or 2000}-{_MONTHS[found['month']]:02}-{int(found['day']):02}"
        return _time_of(f"{day}T{found['clock2']}.{found['part2'] or 0}")
    return _time_of(f"1970-01-01T{found['clock4']}.{found['part4'] or 0}")


def _time_of(value: object) -> float | None:
    """Seconds since 1970 of a number (seconds, or finer when it is large) or of ISO text."""
    if isinstance(value, bool):
        return None
    try:
        if isinstance(value, str) and not re.fullmatch(r"\d+(\.\d+)?", value):
            # fromisoformat takes up to six digits of a second.
            text = re.sub(r"([.,]\d{6})\d+", r"\1", value)
            time = datetime.fromisoformat(text)
            return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
        if isinstance(value, (int, float, str)):
            number = float(value)
            if not 0 <= number < 1e20:
                return None
            while number > 1e11:  # the year 5138: so it is finer than seconds
                number /= 1000
            return number
    except (ValueError, OverflowError):
        pass
    return None


def _json(line: str) -> LogRecord | None:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(entry, dict):
        return None
    message = _first(entry, *MESSAGE_KEYS)
    payload = entry.get("jsonPayload")
    if isinstance(payload, dict) and message is payload:
        message = _first(payload, *MESSAGE_KEYS)
    record = LogRecord(message) if isinstance(message, str) else LogRecord(line, no_message=True)
    record.time = _time_of(_first(entry, "timestamp", "time", "ts", "@timestamp", "asctime", "datetime", "date"))
    logger = _first(entry, "logger", "logger_name", "logger.name", "name", "log.logger", "scope")
    record.logger = logger if isinstance(logger, str) else ""
    event = _first(entry, "event_name", "event.name", "eventName")
    record.event = event if isinstance(event, str) and event else None
    severity = _json_severity(entry)
    if severity is not None:
        record.severity, record.understood = severity, True
    return record


def _json_severity(entry: dict[str, Any]) -> int | None:
    otel = _first(entry, "severity_number", "severityNumber")
    if isinstance(otel, int) and 1 <= otel <= 24:
        return otel
    for key in ("level", "severity", "levelname", "lvl", "log.level", "loglevel", "severity_text", "severityText"):
        level = entry.get(key)
        if isinstance(level, str) and level.upper() in _LEVELS:
            return _LEVELS[level.upper()]
        if isinstance(level, int) and not isinstance(level, bool) and level >= 10:
            # pino and bunyan count trace as 10, debug as 20 and so on: one step above Python.
            return (
                severity_number(level - 10 or 1) if "pid" in entry and "hostname" in entry else severity_number(level)
            )
    number = entry.get("levelno")
    return severity_number(number) if isinstance(number, int) and number > 0 else None


def _first(entry: dict[str, Any], *keys: str) -> Any:
    return next((entry[key] for key in keys if entry.get(key) not in (None, "")), None)
