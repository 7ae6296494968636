"""The `redact` section of a policy: what may stand in it, and every problem with where it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeAlias

from otelweir.pipeline.redact.actions import ACTIONS
from otelweir.pipeline.redact.plan import check_own, listed, read_actions, read_rules
from otelweir.signals import LANES

Flaw: TypeAlias = "tuple[tuple[str | int, ...], str]"

_KEYS: Final = ("action", "rules", "keys", "allow", "own")
_OWN_KEYS: Final = ("name", "pattern", "action")

MAX_OWN: Final = 50
MAX_ENTRIES: Final = 500
MAX_ENTRY: Final = 200


def flaws(section: Any) -> Iterator[Flaw]:
    """Every problem of a section: the path within it, and what is wrong."""
    if section is None:
        return
    if not isinstance(section, Mapping):
        yield (), "is not a mapping"
        return
    names = list(_own_names(section))
    yield from _part(section, (), (*_KEYS, "signals"), names)
    signals = section.get("signals")
    if signals is not None and not isinstance(signals, Mapping):
        yield ("signals",), "is not a mapping"
    elif signals:
        for signal, part in signals.items():
            if signal not in LANES:
                yield ("signals", signal), f"unknown signal; the signals are {', '.join(LANES)}"
            elif part is not None and not isinstance(part, Mapping):
                yield ("signals", signal), "is not a mapping"
            elif part:
                yield from _part(part, ("signals", signal), _KEYS, [*names, *_own_names(part)])


def _own_names(part: Mapping[str, Any]) -> Iterator[str]:
    own = part.get("own")
    for one in own if isinstance(own, list) else []:
        if isinstance(one, Mapping) and isinstance(one.get("name"), str):
            yield one["name"].lower()


def _part(
    part: Mapping[str, Any], path: tuple[str | int, ...], keys: tuple[str, ...], names: list[str]
) -> Iterator[Flaw]:
    for key in part:
        if key not in keys:
            yield (*path, key), f"unknown key; the keys are {', '.join(keys)}"
    for key in ("action", "rules", "keys", "allow"):
        value = part.get(key)
        if value is None:
            continue
        if not isinstance(value, str) and not (isinstance(value, list) and all(isinstance(one, str) for one in value)):
            yield (*path, key), "is not a word or a list of words"
            continue
        entries = listed(value)
        if len(entries) > MAX_ENTRIES or any(len(entry) > MAX_ENTRY for entry in entries):
            yield (*path, key), f"has more than {MAX_ENTRIES} entries, or one of more than {MAX_ENTRY} characters"
            continue
        try:
            if key == "action":
                read_actions(entries, names)
            elif key == "rules":
                read_rules(entries)
        except ValueError as error:
            yield (*path, key), str(error)
    own = part.get("own")
    if own is None:
        return
    if not isinstance(own, list):
        yield (*path, "own"), "is not a list"
        return
    if len(own) > MAX_OWN:
        yield (*path, "own"), f"has {len(own)} rules; {MAX_OWN} are allowed"
        return
    for place, one in enumerate(own):
        here: tuple[str | int, ...] = (*path, "own", place)
        if not isinstance(one, Mapping):
            yield here, "is not a mapping"
            continue
        for key in one:
            if key not in _OWN_KEYS:
                yield (*here, key), f"unknown key; the keys are {', '.join(_OWN_KEYS)}"
        name, pattern, action = one.get("name"), one.get("pattern"), one.get("action")
        if not isinstance(name, str) or not isinstance(pattern, str):
            yield here, "a rule needs `name` and `pattern`"
            continue
        if action is not None and action not in ACTIONS:
            yield (*here, "action"), f"{action!r} is not one of {', '.join(ACTIONS)}"
        try:
            check_own(name.lower(), pattern)
        except ValueError as error:
            yield (*here, "pattern"), str(error)
