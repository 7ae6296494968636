"""The settings of log sampling."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from otelweir.variables import Secret, file, number, one_of, rates, seconds, secret, setting, text, url, whole

Mode = Literal["on", "dry-run", "off"]
Recorder = Literal["off", "errors", "traces"]

DEFAULT_RATES: Final[Mapping[str, float]] = {"debug": 0.05, "info": 0.2, "warn": 0.5, "trace": 0.05, "unspecified": 1.0}
_ALWAYS: Final = "errors are always kept"


@dataclass(frozen=True, eq=False, repr=False)
class LogSamplingSettings:
    """The settings of log sampling."""

    log_sampling: Mode = setting("WEIR_LOG_SAMPLING", "on", one_of("on", "dry-run", "off"))
    """`on` samples; `dry-run` decides and counts but keeps every record; `off` keeps every record and does not look
    at it."""

    log_rates: Mapping[str, float] = setting(
        "WEIR_LOG_RATES", DEFAULT_RATES, rates(DEFAULT_RATES, {"error": _ALWAYS, "fatal": _ALWAYS})
    )
    """Share of the records kept, by severity (`trace`, `debug`, `info`, `warn`, `unspecified`). A severity that is not
    named keeps its default. Error and fatal are always kept."""

    log_first: int = setting("WEIR_LOG_FIRST", 10, whole(1))
    """How many records of each pattern are kept in each window before the rate applies. At least 1, so that no pattern
    disappears."""

    log_window: float = setting("WEIR_LOG_WINDOW", 60.0, seconds(1))
    """Length of the window in which the first records are counted."""

    log_budget: float | None = setting("WEIR_LOG_BUDGET", None, number(above=0))
    """Records per second that this process may keep. Rates fall until the volume fits, each pattern getting a fair
    share. Errors, first records and events are kept even beyond it."""

    log_rollup_interval: float = setting("WEIR_LOG_ROLLUP_INTERVAL", 60.0, seconds(1))
    """How often the exact counts of each pattern are sent, as events named `weir.log.pattern.rollup`."""

    log_max_patterns: int = setting("WEIR_LOG_MAX_PATTERNS", 10_000, whole(100, 1_000_000))
    """How many patterns are told apart; further ones share one overflow pattern. Bounds the memory."""

    log_spike_factor: float = setting("WEIR_LOG_SPIKE_FACTOR", 10.0, number(least=1))
    """A pattern that comes this many times as often as in its own past is a spike: more of it is kept for a while."""

    flight_recorder: Recorder = setting("WEIR_FLIGHT_RECORDER", "off", one_of("off", "errors", "traces"))
    """Whether records that are not kept wait a while and go out as context, with weight 0: `errors` when their trace
    (outside traces, their thread) logs an error or ends with one; `traces` also when their trace is kept at all."""

    flight_recorder_records: int = setting("WEIR_FLIGHT_RECORDER_RECORDS", 20, whole(1, 10_000))
    """How many of the last records wait, for each trace or thread."""

    flight_recorder_traces: int = setting("WEIR_FLIGHT_RECORDER_TRACES", 256, whole(1, 100_000))
    """For how many traces and threads at once. Bounds the memory."""

    flight_recorder_per_second: float = setting("WEIR_FLIGHT_RECORDER_PER_SECOND", 100.0, number(above=0))
    """Records a second that may go out as context, in the long run: many errors shall not become a flood."""

    policy_file: str | None = setting(
        "WEIR_POLICY_FILE", None, file("the path of a YAML or JSON file", for_urls="WEIR_POLICY_URL")
    )
    """A sampling policy. It is read again when it changes. What it sets wins over the variables."""

    policy_url: str | None = setting("WEIR_POLICY_URL", None, url("a URL beginning with http:// or https://"))
    """Where to fetch a sampling policy. What it sets wins over the file."""

    policy_refresh: float = setting("WEIR_POLICY_REFRESH", 300.0, seconds(1))
    """How often the policy URL is asked, give or take a tenth."""

    policy_key: Secret | None = setting("WEIR_POLICY_KEY", None, secret("a token"))
    """Bearer token for the policy URL."""

    policy_cache: str | None = setting("WEIR_POLICY_CACHE", None, text("the path of a folder"))
    """Where the last good policy from the URL is kept. Unset: `otelweir` below `$XDG_CACHE_HOME` or `~/.cache`."""
