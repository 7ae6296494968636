"""The policy document: what may stand in it, and every problem with its line.

The only file that needs pydantic, with what imports it: a service without a policy imports neither.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError
from pydantic_core import PydanticCustomError

from otelweir.pipeline.sample.logs.document import Document, Path, Value, invalid, read, shown
from otelweir.pipeline.sample.logs.rules import ALWAYS_KEPT, OWN_EVENTS, Overlay, Rule
from otelweir.pipeline.sample.logs.settings import Mode
from otelweir.pipeline.sample.spans.rules import KINDS, Kind, Remote, SpanRule, TraceRules
from otelweir.signals import SEVERITIES, Severity
from otelweir.variables import Form, number, one_of, seconds, text, whole

MAX_RULES: Final = 1000
"""More rules would make the first record of each pattern slow."""

Flaws: TypeAlias = Callable[[Value], "Iterable[tuple[Path, str]]"]

_sections: Final[dict[str, Flaws]] = {}


def admit(section: Literal["redact"], flaws: Flaws) -> None:
    """Have a section of another stage checked by that stage.

    Args:
        section: Its key.
        flaws: Gives every problem of its value: the path within it, and what is wrong.
    """
    _sections[section] = flaws


_KEEPS_ERRORS: Final = "error and fatal are always kept, whatever a policy says"
_SELECTORS: Final = ("pattern", "template", "logger", "event", "severity")
_SPAN_SELECTORS: Final = ("span", "kind", "attributes")


def _field(form: Form[Any]) -> BeforeValidator:
    """What a key accepts, in the words that a setting of this form uses."""

    def take(value: Value) -> Any:
        if isinstance(value, str):
            try:
                return form.read(value)
            except (ValueError, OverflowError):
                pass
        raise PydanticCustomError("form", "{shown} is not {words}", {"shown": shown(value), "words": form.words})

    return BeforeValidator(take)


def _rate(value: str) -> float:
    rate = float(value)
    if not 0 <= rate <= 1:
        raise ValueError
    return rate


# A mode as one writes it, and as the booleans of YAML and JSON are written.
_MODES: Final[Mapping[str, Mode]] = {
    "on": "on",
    "yes": "on",
    "true": "on",
    "off": "off",
    "no": "off",
    "false": "off",
    "dry-run": "dry-run",
}


def _mode(value: str) -> Mode:
    if value.lower() not in _MODES:
        raise ValueError
    return _MODES[value.lower()]


def _budget(value: str) -> float:
    return math.inf if value.lower() == "none" else number(above=0).read(value)


_RATE: Final = Form("a number from 0 to 1", _rate)
_MODE: Final = Form("on, dry-run or off", _mode)
_BUDGET: Final = Form("a number above 0, or none", _budget)
_VERSION: Final = Form("1, the only version there is", whole(1, 1).read)
_PATTERN: Final = text("16 hexadecimal digits, as weir.pattern.id has them", r"[0-9a-fA-F]{16}|overflow0{8}")


def _words(what: str) -> Form[str]:
    def take(value: str) -> str:
        # A lone surrogate cannot be printed or sent; `weir policy` would fail over it.
        if not 0 < len(value) <= 4096 or any("\ud800" <= sign <= "\udfff" for sign in value):
            raise ValueError
        return value

    return Form(f"{what} of 1 to 4096 characters", take)


def _some_of(allowed: tuple[str, ...]) -> BeforeValidator:
    """One of some names, or a list of them."""

    def take(value: Value) -> list[str]:
        given = value if isinstance(value, list) else [value]
        wrong = [shown(name) for name in given[:10] if not isinstance(name, str) or name.lower() not in allowed]
        if wrong or not given or len(given) > len(allowed):
            raise PydanticCustomError(
                "form",
                "{shown} is not one of {allowed}, or a list of them",
                {"shown": " and ".join(wrong) or "this list", "allowed": ", ".join(allowed)},
            )
        return [str(name).lower() for name in given]

    return BeforeValidator(take)


Rate = Annotated[float | None, _field(_RATE)]
First = Annotated[int | None, _field(whole(1, 1_000_000))]
PerSecond = Annotated[float | None, _field(number(above=0))]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Rates(_Part):
    """The share kept, by severity. Error and fatal are always kept."""

    trace: Rate = None
    debug: Rate = None
    info: Rate = None
    warn: Rate = None
    unspecified: Rate = None


class RuleEntry(_Part):
    """One rule: at least one condition, and a rate, a number of first records, or both."""

    name: Annotated[str | None, _field(_words("a name"))] = None
    """What to call the rule in answers."""

    pattern: Annotated[str | None, _field(_PATTERN)] = None
    """A pattern id, as `weir.pattern.id` on the records shows it."""

    template: Annotated[str | None, _field(_words("a template"))] = None
    """The template of the pattern, as `log.record.template` shows it; `*` stands for anything."""

    logger: Annotated[str | None, _field(_words("a logger name"))] = None
    """A logger and those below it; `*` stands for anything."""

    event: Annotated[str | None, _field(_words("an event name"))] = None
    """The name of an event. Events that no rule names are all kept."""

    severity: Annotated[list[Severity], _some_of(SEVERITIES)] = []
    """A severity, or a list."""

    rate: Rate = None
    """Share of the records kept beyond the first ones, from 0 to 1."""

    first: First = None
    """Records of each pattern kept in each window before the rate applies."""


class SpanRuleEntry(_Part):
    """One rule for traces that begin here: at least one condition on their first span, and a rate, a limit, or both."""

    name: Annotated[str | None, _field(_words("a name"))] = None
    """What to call the rule in answers."""

    span: Annotated[str | None, _field(_words("the name of a span"))] = None
    """The name of the span; `*` stands for anything."""

    kind: Annotated[list[Kind], _some_of(KINDS)] = []
    """`internal`, `server`, `client`, `producer` or `consumer`, or a list."""

    attributes: dict[str, Annotated[str, _field(_words("a value"))]] = {}
    """Values of attributes that the span is begun with; `*` stands for anything."""

    rate: Rate = None
    """Share of the traces kept, from 0 to 1."""

    per_second: PerSecond = None
    """Traces a second that a process keeps at most."""


class Traces(_Part):
    """What is kept of traces that begin here, for the sampler `weir`."""

    rate: Rate = None
    """Share of the traces kept where no rule fits, from 0 to 1."""

    per_second: PerSecond = None
    """Traces a second that a process keeps at most, of those that no rule fits."""

    remote: Annotated[Remote | None, _field(one_of("honour", "ignore"))] = None
    """`honour` keeps to what another service has decided, `ignore` decides anew."""

    rules: list[SpanRuleEntry] = []
    """The first that fits decides."""


class Policy(_Part):
    """A sampling policy. Every key is optional; what is left out, the source below decides."""

    version: Annotated[Literal[1], _field(_VERSION)] = 1
    """The version of the format."""

    sampling: Annotated[Mode | None, _field(_MODE)] = None
    """`on`, `dry-run` or `off`."""

    rates: Rates = Rates()
    """The share kept, by severity."""

    first: First = None
    """Records of each pattern kept in each window before the rate applies."""

    window: Annotated[float | None, _field(seconds(1))] = None
    """The length of that window."""

    budget: Annotated[float | None, _field(_BUDGET)] = None
    """Records per second that a process may keep, or `none` for no limit."""

    rules: list[RuleEntry] = []
    """What else is to be kept, and of which records."""

    traces: Traces = Traces()
    """What is kept of traces."""

    redact: Any = None
    """What is hidden, and how; another stage's section."""

    def overlay(self, name: str) -> Overlay:
        """The policy in the form that lies over other sources.

        Args:
            name: How to call the document in the names of rules that have none.
        """
        return Overlay(
            mode=self.sampling,
            rates=self.rates.model_dump(exclude_none=True),
            first=self.first,
            window_s=self.window,
            budget_per_s=self.budget,
            rules=tuple(
                Rule(
                    name=rule.name or f"rules[{place}] of {name}",
                    rate=rule.rate,
                    first=rule.first,
                    pattern=rule.pattern and rule.pattern.lower(),
                    template=rule.template,
                    logger=rule.logger,
                    event=rule.event,
                    severities=frozenset(rule.severity),
                )
                for place, rule in enumerate(self.rules)
            ),
            redact=self.redact,
        )

    def trace_rules(self, name: str) -> TraceRules:
        """What the policy says about traces.

        Args:
            name: How to call the document in the names of rules that have none.
        """
        given = self.traces
        return TraceRules(
            rate=1.0 if given.rate is None else given.rate,
            per_second=given.per_second,
            remote=given.remote or "honour",
            rules=tuple(
                SpanRule(
                    name=rule.name or f"traces.rules[{place}] of {name}",
                    rate=1.0 if rule.rate is None else rule.rate,
                    per_second=rule.per_second,
                    span=rule.span,
                    kinds=frozenset(rule.kind),
                    attributes=dict(rule.attributes),
                )
                for place, rule in enumerate(given.rules)
            ),
        )


def parse(data: bytes, name: str) -> Policy:
    """Read and check a policy.

    Args:
        data: The bytes of the file or the answer.
        name: The path or the URL; stands before every problem, and its ending tells the format.

    Raises:
        PolicyError: The policy is not valid; the detail has one line for each problem, or YAML cannot be read here.
    """
    document = read(data, name)
    policy = None
    for path, words in _across(document.value):
        document.flawed(path, words)
    try:
        policy = Policy.model_validate(document.value)
    except ValidationError as error:
        for found in error.errors(include_url=False, include_input=False):
            document.flawed(found["loc"], _in_words(document, found["loc"], found["type"], found["msg"]))
    if document.flaws or policy is None:
        raise invalid(name, document.flaws)
    return policy


def _across(value: Value) -> Iterator[tuple[Path, str]]:
    """Problems between keys; pydantic would tell them only when each key for itself is right."""
    if not isinstance(value, dict):
        return
    for section, flaws in _sections.items():
        for path, words in flaws(value.get(section)):
            yield (section, *path), words
    traces = value.get("traces")
    if isinstance(traces, dict):
        yield from _across_traces(traces.get("rules"))
    rules = value.get("rules")
    if not isinstance(rules, list):
        return
    if len(rules) > MAX_RULES:
        yield ("rules", MAX_RULES), _too_many(rules)
    for place, rule in enumerate(rules):
        if not isinstance(rule, dict):
            continue
        here: Path = ("rules", place)
        if not any(key in rule for key in _SELECTORS):
            yield here, f"a rule needs one of {', '.join(_SELECTORS)}; `rates` sets rates by severity"
        if "rate" not in rule and "first" not in rule:
            yield here, "a rule needs `rate` or `first`"
        event, severities = rule.get("event"), rule.get("severity")
        if isinstance(event, str) and event.startswith(OWN_EVENTS):
            yield (*here, "event"), "Weir's own events carry the exact counts and are always kept"
        given = severities if isinstance(severities, list) else [severities]
        if any(isinstance(name, str) and name.lower() in ALWAYS_KEPT for name in given) and _lowers(rule.get("rate")):
            yield (*here, "severity"), _KEEPS_ERRORS


def _across_traces(rules: Value) -> Iterator[tuple[Path, str]]:
    if not isinstance(rules, list):
        return
    if len(rules) > MAX_RULES:
        yield ("traces", "rules", MAX_RULES), _too_many(rules)
    for place, rule in enumerate(rules):
        if not isinstance(rule, dict):
            continue
        here: Path = ("traces", "rules", place)
        if not any(key in rule for key in _SPAN_SELECTORS):
            yield here, f"a rule needs one of {', '.join(_SPAN_SELECTORS)}; `traces.rate` is for all traces"
        if "rate" not in rule and "per_second" not in rule:
            yield here, "a rule needs `rate` or `per_second`"


def _too_many(rules: list[Value]) -> str:
    return f"is one of {len(rules):,} rules; a policy has at most {MAX_RULES:,}"


def _lowers(rate: Value) -> bool:
    try:
        return isinstance(rate, str) and float(rate) < 1
    except ValueError:
        return False


def _in_words(document: Document, path: tuple[int | str, ...], kind: str, said: str) -> str:
    if kind != "extra_forbidden":
        value = document.value
        for step in path:
            value = value[step] if isinstance(value, (dict, list)) else None  # type: ignore[index]
        match kind:
            case "model_type" | "dict_type" | "model_attributes_type":
                return f"{shown(value)} is not a mapping"
            case "string_type":
                return f"{shown(value)} is not text"
            case "list_type":
                return f"{shown(value)} is not a list"
        return said
    around, name = path[:-1], str(path[-1]).lower()
    if around == ("rates",) and name in ALWAYS_KEPT:
        return _KEEPS_ERRORS
    model: type[BaseModel]
    match around:
        case ():
            model = Policy
        case ("rates",):
            model = Rates
        case ("traces",):
            model = Traces
        case ("traces", *_):
            model = SpanRuleEntry
        case _:
            model = RuleEntry
    known = list(model.model_fields)
    near = difflib.get_close_matches(name[:40], known, n=1, cutoff=0.6)
    return f"unknown key; did you mean {near[0]}?" if near else f"unknown key; the keys are {', '.join(known)}"
