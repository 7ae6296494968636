"""What `weir doctor` finds: the effective configuration, what is installed, what answers, and what is wrong.

`examine` takes everything it looks at as arguments; only `ask` and `fetch` touch the network. No secret is in what it
returns: values are masked before they become part of the report.
"""

from __future__ import annotations

import logging
import math
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Literal

from otelweir import errors, settings
from otelweir.distro import endpoint, otel_variables, spool_health
from otelweir.distro.defaults import OTEL_DEFAULTS
from otelweir.distro.installed import Entry, Installed, normalized
from otelweir.distro.otel_variables import masked
from otelweir.distro.vendors import GENAI, instruments, preferred
from otelweir.errors import Problem
from otelweir.pipeline.capture.genai.settings import GenAISettings
from otelweir.variables import read, scrubbed, shown, without_credentials

if TYPE_CHECKING:
    from otelweir.pipeline.sample.logs.policy_fetch import Answer as PolicyAnswer
    from otelweir.pipeline.sample.logs.rules import Overlay

Level = Literal["problem", "note"]
Ask = Callable[[Sequence[endpoint.Target]], "list[endpoint.Answer]"]
Fetch = Callable[[str, "str | None"], "PolicyAnswer"]
"""Takes the policy URL and the bearer key."""

OLDEST: Final = (1, 44)
"""The oldest minor release of OpenTelemetry that is supported; of the packages in beta it is 0.(minor + 21)."""
NEWEST: Final = (1, 45)
"""The newest that the tests run with."""

OTHER_SDKS: Final[Mapping[str, str]] = {
    "ddtrace": "Datadog",
    "newrelic": "New Relic",
    "logfire": "Logfire",
    "sentry-sdk": "Sentry",
    "elastic-apm": "Elastic APM",
    "scout-apm": "Scout",
    "instana": "Instana",
    "appdynamics": "AppDynamics",
    "honeybadger": "Honeybadger",
    "rollbar": "Rollbar",
    "traceloop-sdk": "Traceloop",
    "langfuse": "Langfuse",
    "azure-monitor-opentelemetry": "Azure Monitor",
    "splunk-opentelemetry": "Splunk",
    "uptrace": "Uptrace",
    "lightstep": "Lightstep",
}
"""Packages that instrument or export by themselves."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something worth a word: a `problem` needs doing something about, a `note` does not."""

    level: Level
    what: str
    remedy: str
    code: str | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One value in force, None where it is unset, and where it comes from: default, variable, policy file or URL."""

    name: str
    value: str | None
    origin: str


@dataclass(frozen=True, slots=True)
class Package:
    name: str
    version: str
    supported: bool


@dataclass(frozen=True, slots=True)
class Instrumentation:
    """An instrumentation that is installed: what it is for, and whether it will be active."""

    name: str
    package: str
    version: str
    library: str
    state: str


@dataclass(frozen=True, slots=True)
class Missing:
    """A library that is installed and could be instrumented."""

    library: str
    version: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One signal's endpoint and what it said; `state` is `answers`, `not asked` or what is wrong."""

    signal: str
    protocol: str
    url: str
    state: str
    status: int | str | None = None
    latency_ms: float | None = None
    clock_skew_s: float | None = None


@dataclass(slots=True)
class Report:
    """Everything that was found."""

    weir: str = ""
    python: str = ""
    settings: list[Row] = field(default_factory=list)
    opentelemetry: list[Row] = field(default_factory=list)
    policy: list[Row] = field(default_factory=list)
    packages: list[Package] = field(default_factory=list)
    instrumentations: list[Instrumentation] = field(default_factory=list)
    missing_instrumentations: list[Missing] = field(default_factory=list)
    endpoints: list[Endpoint] = field(default_factory=list)
    spool: list[Row] = field(default_factory=list)
    deliveries: list[spool_health.Delivery] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing needs doing."""
        return not any(finding.level == "problem" for finding in self.findings)

    def problem(self, problem: Problem | None, what: str, remedy: str | None = None) -> None:
        words = remedy or (problem.remedy if problem else "")
        self._add(Finding("problem", scrubbed(what), scrubbed(words), problem.code if problem else None))

    def note(self, what: str, remedy: str) -> None:
        self._add(Finding("note", scrubbed(what), scrubbed(remedy)))

    def _add(self, finding: Finding) -> None:
        if finding not in self.findings:
            self.findings.append(finding)


def examine(environ: Mapping[str, str], installed: Installed, *, ask: Ask | None, fetch: Fetch | None) -> Report:
    """Look at everything.

    Args:
        environ: The environment of the service.
        installed: What is installed there.
        ask: Asks the endpoints; None to leave the network alone.
        fetch: Fetches the policy; None to leave the network alone.
    """
    report = Report(weir=installed.versions.get("otelweir", "unknown"), python=platform.python_version())
    effective = {**environ, **{name: value for name, value in OTEL_DEFAULTS.items() if not environ.get(name)}}
    _variables(report, environ, effective, installed)
    with _warnings_in(report):
        loaded = settings.load(environ)
        report.settings = list(_settings(loaded))
        _policy(report, loaded, environ, fetch)
    _packages(report, installed)
    _instrumentations(report, effective, installed)
    _conflicts(report, environ, installed)
    _endpoints(report, effective, ask)
    _spool(report, loaded, environ)
    return report


def _settings(loaded: settings.Loaded) -> Iterator[Row]:
    for name, var in settings.VARIABLES.items():
        value = getattr(loaded.settings, name)
        show = var.form.shown or scrubbed
        yield Row(var.name, None if value is None else show(shown(value)), loaded.origins.get(name, "default"))


def _variables(report: Report, environ: Mapping[str, str], effective: Mapping[str, str], installed: Installed) -> None:
    for name in sorted(name for name in effective if name.startswith("OTEL_") and effective[name].strip()):
        origin = "variable" if environ.get(name, "").strip() else "default"
        report.opentelemetry.append(Row(name, masked(name, effective[name]), origin))
    for problem, what, remedy in otel_variables.problems(environ, installed):
        report.problem(problem, what, remedy)
    for name, near in otel_variables.misspelt(environ, otel_variables.known_names(installed)):
        report.note(f"{name} is not a variable that OpenTelemetry knows", f"Did you mean {near}?")
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        report.note("OTEL_SDK_DISABLED=true: nothing is captured and nothing is sent", "Remove it to get telemetry.")
    if not environ.get("OTEL_SERVICE_NAME") and "service.name=" not in environ.get("OTEL_RESOURCE_ATTRIBUTES", ""):
        report.note("The service has no name", "Set OTEL_SERVICE_NAME, unless the platform or the code names it.")
    for part in ("", "TRACES_", "METRICS_", "LOGS_"):
        name = f"OTEL_EXPORTER_OTLP_{part}ENDPOINT"
        path = environ.get(name, "").rstrip("/")
        for signal in otel_variables.SIGNALS:
            if not part and path.endswith(f"/v1/{signal}"):
                report.problem(
                    errors.BAD_VALUE,
                    f"{name} ends in /v1/{signal}, but the exporters add the signal's path to it",
                    f"Remove /v1/{signal} from {name}.",
                )


@contextmanager
def _warnings_in(report: Report) -> Iterator[None]:
    """What Weir warns of meanwhile becomes findings instead of lines in a log."""

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            code, _, rest = record.getMessage().partition(": ")
            problem = errors.PROBLEMS.get(code)
            detail = rest.rpartition(f" {problem.remedy} See ")[0] if problem else ""
            report.problem(problem, detail.removesuffix(".") or rest)

    collector = Collector(logging.WARNING)
    propagate, level = errors.logger.propagate, errors.logger.level
    errors.forget_warnings()
    errors.logger.addHandler(collector)
    errors.logger.propagate = False
    errors.logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        errors.logger.removeHandler(collector)
        errors.logger.propagate = propagate
        errors.logger.setLevel(level)


def _policy(report: Report, loaded: settings.Loaded, environ: Mapping[str, str], fetch: Fetch | None) -> None:
    stated = loaded.settings
    if not (stated.policy_file or stated.policy_url):
        return
    overlays: list[tuple[str, Overlay]] = []
    if stated.policy_file:
        overlay, said = _from_file(report, stated.policy_file)
        report.policy.append(Row(scrubbed(stated.policy_file), said, "policy file"))
        overlays += [("policy file", overlay)] if overlay else []
    if stated.policy_url:
        folder = stated.policy_cache
        overlay, said = _from_url(report, stated.policy_url, stated.policy_key, folder, environ, fetch)
        report.policy.append(Row(without_credentials(stated.policy_url), said, "policy URL"))
        overlays += [("policy URL", overlay)] if overlay else []
    _overlay_rows(report, loaded, overlays)


def _from_file(report: Report, path: str) -> tuple[Overlay | None, str]:
    from otelweir.distro.policy_sections import admit_sections
    from otelweir.pipeline.sample.logs.policy_file import PolicyFile

    admit_sections()
    file = PolicyFile(path)
    file.look()  # what is wrong with it, it warns of
    return file.overlay, _summary(file.overlay) if file.overlay else "cannot be used"


def _from_url(
    report: Report, url: str, key: str | None, folder: str | None, environ: Mapping[str, str], fetch: Fetch | None
) -> tuple[Overlay | None, str]:
    from otelweir.distro.policy_sections import admit_sections
    from otelweir.pipeline.sample.logs.policy import parse
    from otelweir.pipeline.sample.logs.policy_cache import PolicyCache, default_folder
    from otelweir.pipeline.sample.logs.policy_fetch import Failed, Fetched

    admit_sections()
    name = without_credentials(url)
    said = "not asked"
    if fetch:
        match fetch(url, key):
            case Fetched(body, _):
                try:
                    overlay = parse(body, name).overlay(name)
                except errors.PolicyError as error:
                    report.problem(error.problem, error.detail)
                    said = "is not valid"
                else:
                    return overlay, _summary(overlay)
            case Failed(why, _):
                report.problem(errors.POLICY_UNREACHABLE, f"{name}: {why}")
                said = "does not answer with a policy"
            case _:
                said = "answers that nothing has changed, though it was not asked so"
    cached = PolicyCache(folder or default_folder(environ), url).load()
    if cached is None:
        return None, f"{said}; no policy in the cache"
    try:
        overlay = parse(cached.body, name).overlay(name)
    except errors.PolicyError as error:
        report.problem(error.problem, error.detail)
        return None, f"{said}; the policy in the cache is not valid here"
    fetched = datetime.fromtimestamp(cached.fetched_s, UTC).isoformat(" ", "seconds")
    return overlay, f"{said}; in the cache since {fetched}: {_summary(overlay)}"


def _summary(overlay: Overlay) -> str:
    count = len(overlay.rules)
    return f"valid, {count} rule{'' if count == 1 else 's'}"


def _overlay_rows(report: Report, loaded: settings.Loaded, overlays: list[tuple[str, Overlay]]) -> None:
    """Show what the policy sets in place of what the settings say."""
    values: dict[str, tuple[str | None, str]] = {}
    rates = dict(loaded.settings.log_rates)
    for origin, overlay in overlays:
        rates |= overlay.rates
        given: dict[str, object] = {
            "WEIR_LOG_SAMPLING": overlay.mode,
            "WEIR_LOG_RATES": rates if overlay.rates else None,
            "WEIR_LOG_FIRST": overlay.first,
            "WEIR_LOG_WINDOW": overlay.window_s,
            "WEIR_LOG_BUDGET": overlay.budget_per_s,
        }
        values |= {
            # A policy lifts the budget by saying that there is none.
            name: (None if value == math.inf else shown(value), origin)
            for name, value in given.items()
            if value is not None
        }
    report.settings = [Row(row.name, *values[row.name]) if row.name in values else row for row in report.settings]


def _packages(report: Report, installed: Installed) -> None:
    for name in sorted(installed.versions):
        if name != "opentelemetry" and not name.startswith("opentelemetry-"):
            continue
        version = installed.versions[name]
        minor = _minor(version)
        # Packages with a life of their own (2.x, a propagator's 1.0, those for language models) are not tied to the
        # SDK's releases.
        tied = name in _CORE or name.startswith(("opentelemetry-instrumentation", "opentelemetry-exporter-otlp"))
        tied = tied and not name.startswith("opentelemetry-instrumentation-genai")
        supported = not tied or minor is None or minor >= OLDEST
        report.packages.append(Package(name, version, supported))
        if not supported:
            report.problem(
                None,
                f"{name} {version} is older than the oldest supported release (1.{OLDEST[1]}/0.{OLDEST[1] + 21}b0)",
                f"Upgrade it: pip install --upgrade {name}",
            )
    newest = _minor(installed.versions.get("opentelemetry-sdk", ""))
    if newest and newest > NEWEST:
        report.note(
            f"opentelemetry-sdk {installed.versions['opentelemetry-sdk']} is newer than what this Weir was tested with",
            "Look for a newer otelweir.",
        )


_CORE: Final = ("opentelemetry-api", "opentelemetry-sdk", "opentelemetry-semantic-conventions", "opentelemetry-distro")


def _minor(version: str) -> tuple[int, int] | None:
    """Major and minor release; `0.66b1` goes with `1.45`."""
    try:
        major, minor = (int("".join(filter(str.isdigit, part.partition("b")[0]))) for part in version.split(".")[:2])
    except ValueError:
        return None
    return (1, minor - 21) if major == 0 else (major, minor)


def _instrumentations(report: Report, environ: Mapping[str, str], installed: Installed) -> None:
    disabled = {name.strip() for name in environ.get("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", "").split(",")}
    entries = sorted(installed.entries("opentelemetry_instrumentor"), key=lambda entry: entry.name)
    chosen = _arbitrated(report, environ, entries, installed)
    for entry in entries:
        library, fits = _library(entry.package, installed)
        state = "active" if fits else f"idle: {library} is not installed"
        if entry.name == "logging":
            state = "not needed: Weir captures logs itself"
        if fits and chosen.get(entry.name, entry.package) != entry.package:
            state = f"off: {chosen[entry.name]} is used"
        if "*" in disabled or entry.name in disabled:
            state = "off: OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"
        version = installed.versions.get(entry.package, "")
        report.instrumentations.append(Instrumentation(entry.name, entry.package, version, library, state))
    for name in sorted(
        disabled - {"", "*"} - {entry.name for entry in installed.entries("opentelemetry_instrumentor")}
    ):
        report.note(
            f"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS names {name}, which is not installed",
            "Remove it, or correct the name.",
        )
    report.missing_instrumentations = list(_missing(installed))
    for missing in report.missing_instrumentations:
        if missing.library in ("django", "fastapi", "flask", *GENAI):
            report.note(f"{missing.library} is installed but not instrumented", f"Run: {missing.remedy}")


def _arbitrated(
    report: Report, environ: Mapping[str, str], entries: Sequence[Entry], installed: Installed
) -> dict[str, str]:
    """By the name of a library that several packages instrument, the one that does."""
    usable: dict[str, list[str]] = {}
    for entry in entries:
        if _library(entry.package, installed)[1]:
            usable.setdefault(entry.name, []).append(entry.package)
    vendor = read(GenAISettings, environ)[0].genai_vendor
    chosen = {name: preferred(packages, vendor) for name, packages in usable.items() if len(packages) > 1}
    for name, package in chosen.items():
        if environ.get("WEIR_GENAI_VENDOR"):
            break
        others = [other for other in usable[name] if other != package]
        report.problem(
            errors.TWO_INSTRUMENTATIONS,
            f"{name} could be instrumented by {' and by '.join(sorted(usable[name]))}; {package} is used",
            f"Run: pip uninstall {' '.join(others)}, or choose with WEIR_GENAI_VENDOR.",
        )
    return chosen


def _library(package: str, installed: Installed) -> tuple[str, bool]:
    """What an instrumentation is for, and whether that is installed in a version it takes."""
    from packaging.requirements import InvalidRequirement, Requirement

    wanted = []
    for text in installed.requires.get(package, ()):
        if "extra ==" not in text or "instruments" not in text:
            continue
        try:
            wanted.append(Requirement(text))
        except InvalidRequirement:
            continue
    if not wanted:
        return "", True
    versions = [(one, installed.versions.get(normalized(one.name))) for one in wanted]
    fitting = [one for one, version in versions if version and one.specifier.contains(version, prereleases=True)]
    words = [f"{one.name}{one.specifier}" for one in fitting or wanted]
    return " or ".join(words), bool(fitting)


_NOT_WORTH_A_WORD: Final = frozenset({"requests", "urllib3", "grpcio", "click", "pydantic", "structlog"})
"""Libraries that Weir or the exporters bring, and structlog, which Weir captures by itself."""


def _missing(installed: Installed) -> Iterator[Missing]:
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        from opentelemetry.instrumentation.bootstrap_gen import libraries
    except ImportError:
        return
    for name, remedy in GENAI.items():
        if (version := installed.versions.get(name)) and not instruments(name, installed.versions):
            yield Missing(name, version, f"pip install '{remedy}'")
    seen = set(GENAI)
    for known in libraries:
        try:
            library = Requirement(known["library"])
            package = normalized(Requirement(known["instrumentation"]).name)
        except (InvalidRequirement, KeyError, TypeError):
            continue
        name = normalized(library.name)
        version = installed.versions.get(name)
        if (
            not version
            or name in _NOT_WORTH_A_WORD
            or name in seen
            or not library.specifier.contains(version, prereleases=True)
        ):
            continue
        if package not in installed.versions:
            seen.add(name)
            yield Missing(name, version, f"pip install '{known['instrumentation']}'")


_CHOICES: Final = {
    "opentelemetry_distro": "OTEL_PYTHON_DISTRO",
    "opentelemetry_configurator": "OTEL_PYTHON_CONFIGURATOR",
}


def _conflicts(report: Report, environ: Mapping[str, str], installed: Installed) -> None:
    for group, variable in _CHOICES.items():
        entries = installed.entries(group)
        chosen = environ.get(variable, "").strip()
        if len(entries) > 1 and not chosen:
            names = " and ".join(entry.package for entry in entries)
            others = " ".join(entry.package for entry in entries if entry.package != "otelweir")
            report.problem(
                errors.TWO_DISTRIBUTIONS,
                f"{names} are installed as OpenTelemetry distributions; {entries[0].package} happens to be found first",
                f"Set {' and '.join(f'{name}=weir' for name in _CHOICES.values())}, or run: pip uninstall {others}",
            )
        elif chosen and chosen != "weir":
            report.note(f"{variable}={chosen}: Weir is not what configures this service", f"Set {variable}=weir.")
        elif not entries:
            report.problem(errors.NOT_LOADED, f"No package registers the group {group}", "Install otelweir again.")
    for name, vendor in OTHER_SDKS.items():
        if version := installed.versions.get(name):
            report.note(
                f"{name} {version} ({vendor}) is installed: where it is active too, telemetry may be sent twice",
                "Let one of them instrument, or take a part of Weir into the other (README, four ways in).",
            )
    if "opentelemetry-instrumentation-logging" in installed.versions:
        report.note(
            "opentelemetry-instrumentation-logging is installed",
            "Nothing to do: Weir sees to it that log records are not doubled.",
        )
    if path := environ.get("OTEL_CONFIG_FILE", "").strip():
        if "opentelemetry-configuration" not in installed.versions:
            report.problem(
                errors.NOT_LOADED,
                f"OTEL_CONFIG_FILE={path} needs a package that is not installed",
                "Run: pip install opentelemetry-configuration",
            )
        report.note(
            f"OTEL_CONFIG_FILE={path}: exporters, samplers and processors come from that file alone",
            "The OTEL_* variables above do not apply to them.",
        )


def _endpoints(report: Report, environ: Mapping[str, str], ask: Ask | None) -> None:
    targets = list(endpoint.targets(environ))
    # A protocol or an address that cannot be used was reported with the variables.
    fit = [target for target in targets if target.fit]
    answers = dict(zip(fit, ask(fit), strict=True)) if ask and fit else {}
    wrongs: dict[tuple[str, str], list[str]] = {}
    skews: list[tuple[str, str]] = []
    for target in targets:
        answer = answers.get(target)
        if answer is None:
            report.endpoints.append(Endpoint(target.signal, target.protocol, target.shown, "not asked"))
            continue
        if wrong := endpoint.meaning(target, answer):
            wrongs.setdefault(wrong, []).append(f"{target.signal} ({target.shown})")
        if skewed := endpoint.skewed(answer):
            skews.append(skewed)
        report.endpoints.append(
            Endpoint(
                target.signal,
                target.protocol,
                target.shown,
                wrong[0] if wrong else "answers",
                answer.status,
                round(answer.latency_s * 1000, 1),
                None if answer.skew_s is None else round(answer.skew_s, 1),
            )
        )
    for (what, remedy), signals in wrongs.items():
        report.problem(errors.ENDPOINT_SILENT, f"The endpoint of {', '.join(signals)} {what}", remedy)
    # The clock is one; what the signals say of it differs by a second or so.
    for what, remedy in skews[:1]:
        report.problem(None, what, remedy)
    for signal in otel_variables.SIGNALS:
        if not any(target.signal == signal for target in targets):
            exporters = environ.get(f"OTEL_{signal.upper()}_EXPORTER", "")
            off = environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
            why = "OTEL_SDK_DISABLED=true" if off else f"OTEL_{signal.upper()}_EXPORTER={exporters}"
            report.endpoints.append(Endpoint(signal, "", "", f"not sent as OTLP: {why}"))


def _spool(report: Report, loaded: settings.Loaded, environ: Mapping[str, str]) -> None:
    stated = loaded.settings
    if not stated.spool:
        report.spool.append(Row("folder", "none: OpenTelemetry's own exporters are used", "WEIR_SPOOL"))
        return
    folder = spool_health.folder_of(stated, environ)
    if folder is None:
        report.spool.append(Row("folder", "not known: the service has no name", "default"))
        return
    found = spool_health.health(folder, time.time())
    report.spool += _spool_rows(found, loaded)
    report.deliveries = list(found.deliveries)
    _room(report, found, stated)
    for process in found.deliveries:
        _delivery(report, process)
    if found.orphans:
        processes = "1 process that is" if found.orphans == 1 else f"{found.orphans} processes that are"
        report.note(
            f"{_records(found.left)} of {processes} gone wait in {folder}",
            f"The next process of the service sends them; this does so now: weir spool drain {folder}",
        )
    if found.set_aside or found.corrupt:
        what = [f"{_records(sum(found.set_aside.values()))} that will not be sent"] if found.set_aside else []
        what += [f"{found.corrupt} damaged file{'' if found.corrupt == 1 else 's'}"] if found.corrupt else []
        report.note(f"{folder} has put away {' and '.join(what)}", f"Why: weir spool status {folder}")


def _spool_rows(found: spool_health.Health, loaded: settings.Loaded) -> Iterator[Row]:
    stated, origins = loaded.settings, loaded.origins
    state = found.obstacle or ("can be written" if found.is_there else "will be made when it is needed")
    yield Row("folder", str(found.folder), origins.get("spool_dir", "default"))
    yield Row("state", state, "found")
    yield Row("on disk", f"{_mib(found.disk_bytes)} of {_mib(stated.spool_max_bytes)}", "found")
    if found.free_bytes is not None:
        keeps = _mib(stated.spool_min_free_bytes)
        yield Row("free on the disk", f"{_mib(found.free_bytes)}, of which {keeps} stay free", "found")


def _room(report: Report, found: spool_health.Health, stated: settings.Settings) -> None:
    if found.obstacle:
        report.problem(errors.SPOOL_IN_MEMORY, f"{found.folder}: {found.obstacle}")
    if found.free_bytes is not None and found.free_bytes <= stated.spool_min_free_bytes:
        report.problem(
            errors.SPOOL_FULL,
            f"The disk of {found.folder} has {_mib(found.free_bytes)} free, and {_mib(stated.spool_min_free_bytes)} "
            "of it are to stay free",
            "Make room on the disk, or lower WEIR_SPOOL_MIN_FREE_BYTES; until then old records are lost to new ones.",
        )
    share = found.disk_bytes / stated.spool_max_bytes
    if share >= _NEARLY_FULL:
        report.problem(
            errors.SPOOL_FULL,
            f"{found.folder} is {share:.0%} full",
            "Find out below why it is not emptied, or raise WEIR_SPOOL_MAX_BYTES; what does not fit is lost.",
        )


_NEARLY_FULL: Final = 0.9


def _delivery(report: Report, one: spool_health.Delivery) -> None:
    if one.breaker in ("open", "half-open"):
        report.problem(
            errors.ENDPOINT_SILENT,
            f"Process {one.pid} cannot deliver {one.signal} to {one.endpoint}: {one.failing or 'no answer'}; "
            f"{_records(one.waiting)} wait",
        )
    elif one.failing:
        report.note(
            f"The last request of process {one.pid} for {one.signal} was not taken: {one.failing}",
            f"{_records(one.waiting)} wait and are sent again.",
        )
    if lost := sum(one.lost.values()):
        why = ", ".join(f"{reason.replace('_', ' ')} {records}" for reason, records in one.lost.items())
        report.note(
            f"Process {one.pid} lost {_records(lost)} ({one.signal}) since it began: {why}",
            "What the reasons mean is in docs/metrics.md.",
        )


def _records(count: int) -> str:
    return f"{count} record{'' if count == 1 else 's'}"


def _mib(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"


def here(*, network: bool, timeout_s: float = endpoint.TIMEOUT_S) -> Report:
    """Examine the environment that this process runs in."""

    def fetch(url: str, key: str | None) -> PolicyAnswer:
        from otelweir.pipeline.sample.logs.policy_fetch import fetch as fetch_once

        return fetch_once(url, None, key, timeout_s=timeout_s)

    def ask(targets: Sequence[endpoint.Target]) -> list[endpoint.Answer]:
        return endpoint.ask(targets, timeout_s)

    return examine(os.environ, Installed.here(), ask=ask if network else None, fetch=fetch if network else None)
