"""What is hidden and how, for one signal: made of the settings, and of the `redact` section of a policy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from otelweir.pipeline.redact.actions import ACTIONS, Action
from otelweir.pipeline.redact.hint import DEFAULT, OPT_IN
from otelweir.pipeline.redact.own import compiled

NAME: Final = "name"
"""The rule for values whose name says that they are secret."""

RULES: Final = (NAME, *DEFAULT, *OPT_IN)
ON: Final = (NAME, *DEFAULT)


@dataclass(frozen=True)
class Own:
    """A rule of somebody's own.

    Attributes:
        name: Stands in marks and counts.
        pattern: A regular expression that `own.compiled` takes.
        action: None for the plan's.
    """

    name: str
    pattern: str
    action: Action | None = None


@dataclass(frozen=True)
class Plan:
    """What is hidden, and how.

    Attributes:
        rules: Names of the rules that are on.
        action: For rules that have none of their own.
        actions: By rule.
        names: Further names of secrets.
        allow: Names that are no secrets, and values that are none; `*` stands for anything.
        own: Rules of somebody's own.
        key: For keyed hashes.
    """

    rules: tuple[str, ...] = ON
    action: Action = "mask"
    actions: Mapping[str, Action] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()
    own: tuple[Own, ...] = ()
    key: str = field(default="", repr=False)

    def action_of(self, rule: str) -> Action:
        return self.actions.get(rule, self.action)

    @property
    def hashes(self) -> bool:
        """Whether any rule asks for hashes."""
        return any(self.action_of(rule) == "hash" for rule in (*self.rules, *(own.name for own in self.own)))


def read_rules(words: Iterable[str]) -> tuple[str, ...]:
    """The rules of a list such as `default, ipv4, -phone`: from left to right, a name adds and `-name` takes away.

    Raises:
        ValueError: A name is not that of a rule.
    """
    given = [word for word in (word.strip().lower() for word in words) if word]
    # Whoever only takes something away means from the default.
    found: dict[str, None] = dict.fromkeys(ON if given and given[0].startswith("-") else ())
    for word in given:
        off, name = word.startswith("-"), word.removeprefix("-")
        if name == "none" and not off:
            found.clear()
            continue
        if name not in (*RULES, "default", "all"):
            raise ValueError(f"{name!r} is not one of default, all, none, {', '.join(RULES)}")
        for one in {"default": ON, "all": RULES}.get(name, (name,)):
            if off:
                found.pop(one, None)
            else:
                found[one] = None
    return tuple(rule for rule in RULES if rule in found)


def read_actions(words: Iterable[str], more: Iterable[str] = ()) -> tuple[Action, dict[str, Action]]:
    """The actions of a list such as `mask, email=hash`: one for all rules, and those of single ones.

    Args:
        words: The list.
        more: Names of rules beside the built-in ones.

    Raises:
        ValueError: A word is no action, or names no rule.
    """
    general: Action = "mask"
    single: dict[str, Action] = {}
    for word in filter(None, (word.strip().lower() for word in words)):
        rule, sign, name = word.rpartition("=")
        rule, name = rule.strip(), name.strip()
        if name not in ACTIONS:
            raise ValueError(f"{name!r} is not one of {', '.join(ACTIONS)}")
        if sign and rule not in (*RULES, *more):
            raise ValueError(f"{rule!r} is not one of {', '.join((*RULES, *more))}")
        if sign:
            single[rule] = name
        else:
            general = name
    return general, single


def layered(base: Plan, section: Mapping[str, Any] | None, signal: str) -> Plan:
    """The plan of a signal: a base, above it the section of a policy, above that what the section has for the signal.

    Lists add to those below; rules and actions replace them.

    Args:
        section: Plain values that `section.flaws` finds nothing wrong with.
    """
    if not section:
        return base
    of_signal = (section.get("signals") or {}).get(signal) or {}
    plan = base
    for part in (section, of_signal):
        own = plan.own + tuple(
            Own(str(one["name"]).lower(), str(one["pattern"]), one.get("action")) for one in part.get("own") or ()
        )
        more = [one.name for one in own]
        general, single = plan.action, dict(plan.actions)
        if given := part.get("action"):
            words = listed(given)
            general, single = read_actions(words, more)
            if not any("=" not in word for word in words):
                general = plan.action
            single = {**plan.actions, **single}
        single |= {one.name: one.action for one in own if one.action is not None}
        plan = Plan(
            rules=read_rules(listed(part["rules"])) if part.get("rules") else plan.rules,
            action=general,
            actions=single,
            names=plan.names + tuple(listed(part.get("keys"))),
            allow=plan.allow + tuple(listed(part.get("allow"))),
            own=own,
            key=plan.key,
        )
    return plan


def listed(value: object) -> list[str]:
    """What somebody wrote as a list, or as text with commas.

    >>> listed("default, ipv4"), listed(["default"]), listed(None)
    (['default', 'ipv4'], ['default'], [])
    """
    words = value.split(",") if isinstance(value, str) else value if isinstance(value, (list, tuple)) else []
    return [word.strip() for word in map(str, words) if word.strip()]


def check_own(name: str, pattern: str) -> None:
    """
    Raises:
        ValueError: The pattern or the name cannot be used.
    """
    if name in RULES or not name.replace("-", "").replace("_", "").isalnum() or len(name) > 40:
        raise ValueError("a rule's name is of letters, digits, - and _, at most 40, and not that of a built-in rule")
    compiled(pattern)
