"""The settings of redaction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from otelweir.pipeline.redact.plan import RULES, Plan, listed, read_actions, read_rules
from otelweir.variables import Form, Secret, flag, one_of, secret, setting

Detector = Literal["none", "presidio"]


def _rules(value: object) -> str:
    read_rules(listed(value))
    return ",".join(listed(value))


def _actions(value: object) -> str:
    read_actions(listed(value))
    return ",".join(listed(value))


def _entries(value: object) -> str:
    found = listed(value)
    if not found or any(len(entry) > 200 for entry in found):
        raise ValueError
    return ",".join(found)


_RULES = Form(f"a list such as default,ipv4,-phone of {', '.join(RULES)}", _rules)
_ACTIONS = Form("mask, partial, hash or drop, and for single rules such as email=hash", _actions)


@dataclass(frozen=True, eq=False, repr=False)
class RedactSettings:
    """The settings of redaction."""

    redact: bool = setting("WEIR_REDACT", True, flag())
    """Whether secrets and personal data are hidden in everything that leaves, before it is kept or sent."""

    redact_rules: str = setting("WEIR_REDACT_RULES", "default", _RULES)
    """What is looked for. `default` is all but `ipv4` and `ipv6`; a name adds a rule and `-name` takes one away, from
    left to right."""

    redact_action: str = setting("WEIR_REDACT_ACTION", "mask", _ACTIONS)
    """What is done with what was found: `mask` puts a mark in its place, `partial` leaves a little of it, `hash` puts a
    keyed hash there, by which values can still be joined, `drop` leaves it out."""

    redact_key: Secret | None = setting("WEIR_REDACT_KEY", None, secret("a secret text"))
    """The key of the hashes. The same key gives the same hash for the same value in every process. Without one, `hash`
    masks."""

    redact_keys: str | None = setting("WEIR_REDACT_KEYS", None, Form("names such as customer_code,x-*-ref", _entries))
    """Further attribute names (and names in texts, as in `name=value`) whose values are secret. Words are found within
    a name however it is written; with a `*`, the whole name has to fit."""

    redact_allow: str | None = setting(
        "WEIR_REDACT_ALLOW", None, Form("names and values such as session_token,*@example.com", _entries)
    )
    """Names and values that stay as they are; `*` stands for anything."""

    redact_detector: Detector = setting("WEIR_REDACT_DETECTOR", "none", one_of("none", "presidio"))
    """What looks at texts in addition. `presidio` finds names of persons and places, and takes milliseconds for each
    text (`pip install 'otelweir[presidio]'`)."""


def plan_of(settings: RedactSettings) -> Plan:
    """What the settings say is to be hidden, and how."""
    action, actions = read_actions(listed(settings.redact_action))
    return Plan(
        rules=read_rules(listed(settings.redact_rules)),
        action=action,
        actions=actions,
        names=tuple(listed(settings.redact_keys)),
        allow=tuple(listed(settings.redact_allow)),
        key=settings.redact_key or "",
    )
