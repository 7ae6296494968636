"""What can go wrong, each with a code and a remedy; `docs/troubleshooting.md` has an entry for every code.

Exceptions that callers may catch form one tree::

    WeirError
    ├── ConfigError        a setting or an argument that cannot be used
    │   └── MissingExtra   an optional dependency that is not installed
    ├── PolicyError        a sampling policy that cannot be read or is not valid
    └── ServerError        a local server that cannot start, or an endpoint that does not answer

In the pipeline nothing is raised into the application: problems are reported with `warn`, once each.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

logger = logging.getLogger("otelweir")

DOCS: Final = "docs/troubleshooting.md"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that can go wrong.

    Attributes:
        code: `WEIR-<AREA>-<NUMBER>`; never reused.
        title: What is wrong, in a few words.
        remedy: One sentence that says what to do next.
    """

    code: str
    title: str
    remedy: str


PROBLEMS: Final[dict[str, Problem]] = {}


def _problem(code: str, title: str, remedy: str) -> Problem:
    PROBLEMS[code] = problem = Problem(code, title, remedy)
    return problem


BAD_VALUE = _problem(
    "WEIR-CONFIG-001",
    "A setting has a value that cannot be used",
    "Correct the value; until then the next best one applies: the variable, else the default.",
)
UNKNOWN_SETTING = _problem(
    "WEIR-CONFIG-002",
    "A WEIR_* variable is not a setting of Weir",
    "Use the name that the message suggests, or remove the variable.",
)
TWO_DISTRIBUTIONS = _problem(
    "WEIR-CONFIG-003",
    "Several OpenTelemetry distributions are installed",
    "Choose one with OTEL_PYTHON_DISTRO and OTEL_PYTHON_CONFIGURATOR, or uninstall the others.",
)
ALREADY_CONFIGURED = _problem(
    "WEIR-CONFIG-004",
    "OpenTelemetry is already configured in this process",
    "Configure once: with opentelemetry-instrument or with otelweir.configure(), not both.",
)
NOT_LOADED = _problem(
    "WEIR-CONFIG-005",
    "A component that a setting names cannot be loaded",
    "Correct the name, or install the package that provides it.",
)
MISSING_EXTRA = _problem(
    "WEIR-CONFIG-006",
    "An optional dependency is not installed",
    "Install the extra that the message names.",
)
POLICY_UNREADABLE = _problem(
    "WEIR-POLICY-001",
    "The policy file cannot be read",
    "Check the path and the permissions; until then the last good policy applies.",
)
POLICY_INVALID = _problem(
    "WEIR-POLICY-002",
    "The policy is not valid",
    "Correct the line that the message names (`weir policy check FILE`); until then the last good policy applies.",
)
POLICY_UNREACHABLE = _problem(
    "WEIR-POLICY-003",
    "The policy URL gives no policy",
    "Check WEIR_POLICY_URL, its key and the network; until then the last good policy applies.",
)
POLICY_CACHE = _problem(
    "WEIR-POLICY-004",
    "The cached policy cannot be stored or read",
    "Make WEIR_POLICY_CACHE a folder that the service may write; without it a restart during an outage has no policy.",
)
CAPTURE_FAILED = _problem(
    "WEIR-CAPTURE-001",
    "Weir failed to capture a log record",
    "Please report it with the message below; the application is not affected.",
)
TRACK_FAILED = _problem(
    "WEIR-TRACK-001",
    "Weir failed to capture a span's content",
    "Please report it with the message below; the application is not affected.",
)
BAD_ARGUMENT = _problem(
    "WEIR-TRACK-002",
    "An argument of track, span or trace cannot be used",
    "Correct the argument that the message names.",
)
NOT_BEGUN = _problem(
    "WEIR-TRACK-003",
    "A span was told something before it began",
    "Call start() first, or use it as a context manager.",
)
SAMPLE_FAILED = _problem(
    "WEIR-SAMPLE-001",
    "Weir failed to decide on a log record and kept it",
    "Please report it with the message below; the application is not affected.",
)
TOO_MANY_PATTERNS = _problem(
    "WEIR-SAMPLE-002",
    "More log patterns than the table holds; further ones share one overflow pattern",
    "Raise WEIR_LOG_MAX_PATTERNS, or pass the varying part of the message as an argument.",
)
TRACE_SAMPLE_FAILED = _problem(
    "WEIR-SAMPLE-003",
    "Weir failed to decide on a trace and kept it",
    "Please report it with the message below; the application is not affected.",
)
REDACT_FAILED = _problem(
    "WEIR-REDACT-001",
    "Weir failed to look for secrets in a value and replaced all of it",
    "Please report it with the message below; the record itself goes on, without the value.",
)
REDACT_NO_KEY = _problem(
    "WEIR-REDACT-002",
    "Hashes are asked for in the place of secrets, but there is no key, so marks stand there",
    "Set WEIR_REDACT_KEY to a secret text, the same for all services whose values are to be joined.",
)
QUEUE_FULL = _problem(
    "WEIR-DELIVER-001",
    "Log records come faster than they can be exported, and some are lost",
    "Turn sampling on (WEIR_LOG_SAMPLING), or raise OTEL_BLRP_MAX_QUEUE_SIZE.",
)
UNAUTHORISED = _problem(
    "WEIR-DELIVER-002",
    "The endpoint does not accept the key",
    "Correct OTEL_EXPORTER_OTLP_HEADERS, or renew the key; until then everything waits.",
)
PARTLY_REJECTED = _problem(
    "WEIR-DELIVER-003",
    "The endpoint took a request, but not all of its records, or has something to say about it",
    "Read the server's message; what it refused is counted as `rejected` and not sent again.",
)
SET_ASIDE = _problem(
    "WEIR-DELIVER-004",
    "The endpoint will never take these records, so they are set aside",
    "Read the server's message; the records are kept, and counted as `rejected` or `too_large`.",
)
COURIER_FAILED = _problem(
    "WEIR-DELIVER-005",
    "Weir failed while it sent; it goes on",
    "Please report it with the message below; nothing that waits is lost by it.",
)
STILL_WAITING = _problem(
    "WEIR-DELIVER-006",
    "Not everything was delivered when the process ended",
    "The next start of the service sends it, and so does `weir spool drain`.",
)
HEADERS_FILE = _problem(
    "WEIR-AUTH-001",
    "The file of headers cannot be used",
    "Correct the file that WEIR_HEADERS_FILE names; until then the last good headers are sent.",
)
LOGIN = _problem(
    "WEIR-AUTH-002",
    "The login gives no token",
    "Check WEIR_AUTH_URL, _USER and _PASSWORD; the last token is used while it is valid, then everything waits.",
)
SPOOL_IN_MEMORY = _problem(
    "WEIR-SPOOL-001",
    "The spool cannot be kept on disk; records wait in memory, and the end of the process loses them",
    "Give the service a folder of its own that it may write, with room on the disk.",
)
SPOOL_WRITES = _problem(
    "WEIR-SPOOL-002",
    "The spool cannot reserve and map its files and writes each record with a system call",
    "Put the spool on a local file system to make logging cheaper; nothing is lost this way.",
)
SPOOL_FULL = _problem(
    "WEIR-SPOOL-003",
    "The spool is full, and records are lost",
    "Find out why nothing is delivered (`weir doctor`), or give the spool more room.",
)
SPOOL_DAMAGED = _problem(
    "WEIR-SPOOL-004",
    "A file of the spool is damaged, and records in it are lost",
    "Check the disk; every whole record is sent, and what could be kept of the file lies in the folder `aside`.",
)
SPOOL_FAILED = _problem(
    "WEIR-SPOOL-005",
    "Weir failed to keep a record",
    "Please report it with the message below; the application is not affected.",
)
SPOOL_ASIDE_FULL = _problem(
    "WEIR-SPOOL-006",
    "What was set aside takes its quarter of the spool, and its oldest files are deleted",
    "Read what the endpoint refuses (`weir spool cat --aside`), correct it, and empty the folder `aside`.",
)
PRICES_UNUSABLE = _problem(
    "WEIR-GENAI-001",
    "The file of prices cannot be used",
    "Correct the file that WEIR_PRICES_FILE names, and start again; until then only the prices of genai-prices apply.",
)
UNKNOWN_MODEL = _problem(
    "WEIR-GENAI-002",
    "Nobody knows what a model costs",
    "Add its price to the file that WEIR_PRICES_FILE names, or install a newer genai-prices.",
)
BUDGET_EXCEEDED = _problem(
    "WEIR-GENAI-003",
    "Calls to language models cost more than the budget",
    "Find out which calls they are (the metric weir.genai.cost), or raise WEIR_COST_BUDGET; nothing is stopped.",
)
TWO_INSTRUMENTATIONS = _problem(
    "WEIR-GENAI-004",
    "Several packages instrument the same library",
    "Uninstall the others, or choose with WEIR_GENAI_VENDOR.",
)
GENAI_FAILED = _problem(
    "WEIR-GENAI-005",
    "Weir failed to work out what a call cost, and lets its span pass",
    "Please report it with the message below; the application is not affected.",
)
NO_TOKENS = _problem(
    "WEIR-GENAI-006",
    "A stream has told no tokens, so nobody knows what it cost",
    'Ask for them: stream_options={"include_usage": True}, with OpenAI\'s chat completions and what speaks like them.',
)
PORT_IN_USE = _problem(
    "WEIR-SERVER-001",
    "The port is in use",
    "Stop what listens there, or choose another port with --port.",
)
DATABASE_UNUSABLE = _problem(
    "WEIR-SERVER-002",
    "The database cannot be opened",
    "Choose another file with --db, or remove the damaged one.",
)
ENDPOINT_SILENT = _problem(
    "WEIR-SERVER-003",
    "The OTLP endpoint does not answer",
    "Start the collector (or `weir dev`), or correct OTEL_EXPORTER_OTLP_ENDPOINT.",
)
DEMO_FAILED = _problem(
    "WEIR-SERVER-004",
    "The demo service did not start",
    "Read the output of the service below; `pip install 'otelweir[demo]'` installs what it needs.",
)
HOST_UNUSABLE = _problem(
    "WEIR-SERVER-005",
    "The host is no address of this machine",
    "Name an address of this machine with --host, or leave it out: 127.0.0.1 always works.",
)
NO_TEMPORARY_FOLDER = _problem(
    "WEIR-SERVER-006",
    "No temporary folder can be used",
    "Set TMPDIR to a folder that exists, has room and may be written.",
)


class WeirError(Exception):
    """Base of every exception that Weir raises on purpose.

    Args:
        problem: What went wrong; gives the code and the remedy.
        detail: The particulars: names, values, lines.
    """

    def __init__(self, problem: Problem, detail: str) -> None:
        self.problem = problem
        self.detail = detail
        super().__init__(message(problem, detail))

    @property
    def code(self) -> str:
        return self.problem.code


class ConfigError(WeirError):
    """A setting or an argument cannot be used."""


class MissingExtra(ConfigError, ImportError):
    """An optional dependency is not installed.

    Args:
        extra: The extra of `otelweir` that brings it.
        needs: The package that is missing.
    """

    def __init__(self, extra: str, needs: str) -> None:
        super().__init__(MISSING_EXTRA, f"{needs} is not installed: pip install 'otelweir[{extra}]'")


class PolicyError(WeirError):
    """A sampling policy cannot be read or is not valid."""


class ServerError(WeirError):
    """A local server cannot start, or an endpoint does not answer."""


def message(problem: Problem, detail: str) -> str:
    """One line: code, particulars, remedy."""
    sentence = detail if detail.endswith(("?", "!")) else f"{detail.rstrip('.')}."
    return f"{problem.code}: {sentence} {problem.remedy} See {DOCS}#{problem.code.lower()}"


_said: set[tuple[str, str]] = set()
# Reentrant, for signal handlers and finalizers that warn in between.
_saying = threading.RLock()
_listeners: list[Callable[[Problem, str], None]] = []


def listen(listener: Callable[[Problem, str], None]) -> None:
    """Have somebody told of each warning that is given from now on, as the log is. It must not raise."""
    _listeners.append(listener)


def warn(problem: Problem, detail: str, *, exc_info: BaseException | None = None) -> None:
    """Log a warning on the `otelweir` logger, once for each problem and detail in this process."""
    with _saying:
        if (problem.code, detail) in _said or len(_said) > 1000:
            return
        _said.add((problem.code, detail))
    for listener in _listeners:
        listener(problem, detail)
    logger.warning("%s", message(problem, detail), exc_info=exc_info)


def _after_fork() -> None:
    # Another thread of the parent may have held the lock; it does not exist in the child.
    global _saying
    _saying = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class Trouble:
    """A warning about something that is looked at again and again: said once while it lasts, and anew if it returns."""

    def __init__(self) -> None:
        self._now: tuple[Problem, str] | None = None

    def __repr__(self) -> str:
        return f"<Trouble {self._now[0].code}>" if self._now else "<Trouble none>"

    def say(self, problem: Problem, detail: str) -> None:
        """Warn, unless this is what was said last."""
        if (problem, detail) == self._now:
            return
        self.over()
        self._now = (problem, detail)
        warn(problem, detail)

    def over(self) -> None:
        """What was said is mended."""
        if self._now is not None:
            problem, detail = self._now
            self._now = None
            with _saying:
                _said.discard((problem.code, detail))


def forget_warnings() -> None:
    """Let every warning be given again; for tests."""
    with _saying:
        _said.clear()
