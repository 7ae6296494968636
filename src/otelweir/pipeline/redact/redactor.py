"""Hides secrets in texts, values and attributes, by a plan; the same for every signal, and counted by rule.

What a plan does not touch comes back as the same object, so that whoever asks can tell, and pays nothing more. Texts
that were found clean are remembered, as far as they are short: most values of telemetry come again and again.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from otelweir import errors
from otelweir.pipeline.redact.actions import FAILED, MARK, PLACE, replaced
from otelweir.pipeline.redact.hint import NEEDS, OPT_IN, OPTION, PAIR, looks
from otelweir.pipeline.redact.names import Names, wildcard
from otelweir.pipeline.redact.plan import NAME, Plan, layered
from otelweir.signals import LANES, Lane

if TYPE_CHECKING:
    from otelweir.pipeline.redact.rules import Rule

Detector: TypeAlias = Callable[[str], Iterable[tuple[int, int, str]]]
"""Finds more: where each secret of a text begins and ends, and the name of its kind."""

FAILURE: Final = "failed"
"""Counts what could not be looked at, and was replaced as a whole."""

_SHORT: Final = 96
_MAX_TEXTS: Final = 4096
_MAX_KEYS: Final = 2048
_MAX_LONG: Final = 16_384
_MAX_LONGS: Final = 64
_FEW_LINES: Final = 4
_MAX_LINES: Final = 2048
_MAX_TWO_LINES: Final = 400
_LEAST: Final = 5
_MAX_DEPTH: Final = 64
_MAX_CONTAINERS: Final = 10_000
_BEYOND: Final = "…"
"""Stands for what is within itself, or too deep."""

_CARD: Final = 10**11
"""From here on an integer may be the number of a card, or an account."""


class Scrubber:
    """Hides the secrets of one signal. Never raises: what it cannot look at, it replaces.

    Args:
        plan: What is hidden, and how.
        count: Told the rule of each thing that was hidden.
        detector: Looks at texts in addition to the rules.
    """

    def __init__(self, plan: Plan, count: Callable[[str], None], detector: Detector | None = None) -> None:
        self._count = count
        self._detector = detector
        self.use(plan)

    def __repr__(self) -> str:
        return f"<Scrubber {', '.join(self.plan.rules)}, {len(self.plan.own)} own>"

    def use(self, plan: Plan) -> None:
        """Go by another plan from now on."""
        self.plan = plan
        self._by_name = NAME in plan.rules
        self._names = Names(plan.names, plan.allow)
        self._allowed = [wildcard(entry) for entry in plan.allow]
        self._always = bool(set(plan.rules) & set(OPT_IN) or plan.own or self._detector)
        # With their plan: another thread may be about to load those of the last one.
        self._rules: tuple[Plan, list[tuple[int, str, Rule]]] | None = None
        # New ones, as another thread may be about to add to the old.
        self._texts: set[str] = set()
        self._long: set[str] = set()
        self._lines: set[str] = set()
        self._keys: set[str] = set()

    # --- attributes -------------------------------------------------------------------------------------------------

    def attributes(self, pairs: Mapping[Any, Any]) -> dict[Any, Any] | None:
        """The attributes without their secrets; None when they can stay as they are.

        Args:
            pairs: Nobody may write to it meanwhile.
        """
        keys, texts = self._keys, self._texts
        changes: dict[Any, tuple[Any, ...]] | None = None
        for key, value in pairs.items():
            kind = type(value)
            if key in keys:
                if kind is str:
                    if len(value) < _SHORT and value in texts:
                        continue
                    now = self.text(value)
                    if now is value:
                        continue
                    after: tuple[Any, ...] = (key, now)
                elif (
                    kind is bool
                    or (kind is int and -_CARD < value < _CARD)
                    or kind is float
                    or value is None
                    or (after := self._attribute(key, value)) is None
                ):
                    continue
            elif (other := self._attribute(key, value)) is None:
                continue
            else:
                after = other
            if changes is None:
                changes = {}
            changes[key] = after
        if changes is None:
            return None
        found: dict[Any, Any] = {}
        numbers: dict[str, int] = {}
        for key, value in pairs.items():
            left = changes.get(key)
            if left is None:
                found[key] = value
            elif left:
                name, now = left
                found[name if name is key else _fresh(name, found, numbers)] = now
        return found

    def _attribute(self, key: Any, value: Any) -> Any:
        """The key and the value as they may leave: None for as they are, empty for not at all."""
        try:
            keys = self._keys
            name = key if type(key) is str else str(key)
            shown = self.text(name) if len(name) >= _LEAST else name
            if self._by_name and self._names.secret(name):
                now = self._hidden(name, value, _Walk())
                if now is _GONE:
                    return ()
            else:
                if shown is key:
                    _keep(key, keys)
                now = self._inner(value, _Walk())
            if now is value and shown is key:
                return None
            return shown, now
        except Exception as error:  # noqa: BLE001 - values of the application's own types may do anything
            return key if type(key) is str else FAILED, self._failed(error)

    def _hidden(self, name: str, value: Any, walk: _Walk) -> Any:
        """What stands for the value of a secret's name; `_GONE` for nothing."""
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, (int, float)) and not self._names.secret_number(name):
            return value
        if isinstance(value, (list, tuple)):
            below = walk.down(value)
            if below is None:
                return _BEYOND
            found = [item for one in value if (item := self._hidden(name, one, below)) is not _GONE]
            same = len(found) == len(value) and all(map(_is, found, value))
            return value if same and isinstance(value, tuple) else tuple(found) if isinstance(value, tuple) else found
        text = value if type(value) is str else _text(value)
        if not text or self._is_allowed(text):
            return value
        if PLACE.fullmatch(text) or (text.startswith("[redacted") and text.endswith("]")):
            return value
        self._count(NAME)
        action = self.plan.action_of(NAME)
        return _GONE if action == "drop" else replaced(NAME, text, action, self.plan.key.encode())

    # --- values -----------------------------------------------------------------------------------------------------

    def value(self, value: Any) -> Any:
        """A value of any type without its secrets; the same object when it can stay as it is, and cannot change."""
        try:
            return self._inner(value, _Walk())
        except Exception as error:  # noqa: BLE001 - values of the application's own types may do anything
            return self._failed(error)

    def _inner(self, value: Any, walk: _Walk) -> Any:
        kind = type(value)
        if kind is str:
            return self.text(value)
        if value is None or kind is bool or kind is float:
            return value
        if isinstance(value, str):
            return self.text(str.__str__(value))
        if isinstance(value, bool):
            return value
        if isinstance(value, int):
            if -_CARD < value < _CARD or value.bit_length() > 128:
                return value
            text = int.__repr__(value)
            now = self.text(text)
            return value if now is text else now
        if isinstance(value, float):
            return value
        if isinstance(value, (bytes, bytearray, memoryview)):
            data = bytes(value)
            text = data.decode("utf-8", "surrogateescape")
            now = self.text(text)
            return data if now is text else now.encode("utf-8", "surrogateescape")
        if isinstance(value, Mapping):
            return self._mapping(value, walk.down(value))
        if isinstance(value, (Sequence, set, frozenset)):
            return self._sequence(value, walk.down(value))
        # Whoever sends it makes a text of it.
        return self.text(_text(value))

    def _mapping(self, pairs: Mapping[Any, Any], walk: _Walk | None) -> Any:
        if walk is None:
            return _BEYOND
        found: dict[Any, Any] = {}
        numbers: dict[str, int] = {}
        # Copied in any case: the application may go on to write to its own.
        for key, value in list(pairs.items()):
            name = key if type(key) is str else str(key)
            if self._by_name and self._names.secret(name):
                now = self._hidden(name, value, walk)
                if now is _GONE:
                    continue
                if isinstance(now, list) and now is value:
                    now = list(now)
            else:
                now = self._inner(value, walk)
            shown = self.text(name)
            found[key if shown is name else _fresh(shown, found, numbers)] = now
        return found

    def _sequence(self, values: Any, walk: _Walk | None) -> Any:
        if walk is None:
            return _BEYOND
        values = values if isinstance(values, tuple) else list(values)
        found: list[Any] = []
        flag = ""
        for value in values:
            # --password hunter2, as arguments of a command
            if flag and isinstance(value, str) and not value.startswith("-"):
                now = self._hidden(flag, value, walk)
                now = "" if now is _GONE else now
            else:
                now = self._inner(value, walk)
            flag = ""
            if type(value) is str and value.startswith("-") and "=" not in value and self._by_name:
                flag = value if self._names.secret(value) else ""
            found.append(now)
        if isinstance(values, tuple):
            return values if all(map(_is, found, values)) else tuple(found)
        return found

    # --- texts ------------------------------------------------------------------------------------------------------

    def text(self, text: str) -> str:
        """A text without its secrets; the same object when there are none."""
        try:
            length, texts = len(text), self._texts
            if length < _LEAST or (length < _SHORT and text in texts):
                return text
            if length >= _SHORT and self._known(text):
                return text
            seen = looks(text)
            if (seen or self._always) and (found := self._found(text, seen)):
                return self._without(text, found)
            _remember(text, texts)
            return text
        except Exception as error:  # noqa: BLE001 - what could not be looked at may not leave
            return self._failed(error)

    def clean(self, text: str) -> bool:
        """Whether a text can stay as it is. Counts nothing."""
        try:
            length = len(text)
            if length < _SHORT:
                if length < _LEAST or text in self._texts:
                    return True
            elif self._known(text):
                return True
            seen = looks(text)
            return not (seen or self._always) or not self._found(text, seen)
        except Exception:  # noqa: BLE001 - whoever replaces it will say so
            return False

    def _known(self, text: str) -> bool:
        """Whether a long text holds no secret, by what has been seen: this text before, or each of its lines with the
        next one. False for not known. Prompts come again with each turn, and stack traces share their frames.

        Nothing that is found needs more than two lines, but for private keys, and what others find.
        """
        if len(text) > _MAX_LONG or type(text) is not str or self._always:
            return False
        # First, as whoever goes by another plan from now on puts new ones in their place.
        long, known = self._long, self._lines
        if text in long:
            return True
        lines = text.split("\n")
        if len(lines) < _FEW_LINES or "-----BEGIN" in text:
            seen = looks(text)
            if seen and self._found(text, seen):
                return False
        else:
            before = lines[0]
            for line in lines[1:]:
                two = f"{before}\n{line}"
                before = line
                if two in known:
                    continue
                seen = looks(two)
                if seen and self._found(two, seen):
                    return False
                if len(two) <= _MAX_TWO_LINES:
                    if len(known) >= _MAX_LINES:
                        known.clear()
                    known.add(two)
        if len(long) >= _MAX_LONGS:
            long.clear()
        long.add(text)
        return True

    def clean_name(self, name: Any) -> bool:
        """Whether the attribute of a name can stay as it is, if its value can."""
        keys = self._keys
        if name in keys:
            return True
        if type(name) is not str or (self._by_name and self._names.secret(name)) or not self.clean(name):
            return False
        _keep(name, keys)
        return True

    def clean_value(self, value: Any, depth: int = 0) -> bool:
        """Whether a value of any type can stay as it is. Nobody may write to it meanwhile."""
        kind = type(value)
        if kind is str:
            texts = self._texts
            if not self.clean(value):
                return False
            _remember(value, texts)
            return True
        if kind is int:
            return -_CARD < value < _CARD or value.bit_length() > 128 or self.clean(int.__repr__(value))
        if kind is tuple or kind is list:
            return (
                depth < _MAX_DEPTH
                and all(self.clean_value(one, depth + 1) for one in value)
                and not any(type(one) is str and one[:1] == "-" and self._names.secret(one) for one in value)
            )
        if kind is dict:
            return depth < _MAX_DEPTH and all(
                self.clean_name(key) and self.clean_value(one, depth + 1) for key, one in value.items()
            )
        return kind is bool or kind is float or value is None

    def findings(self, text: str) -> list[tuple[int, int, str]]:
        """Where the secrets of a text begin and end, and their rules, in order; none overlaps another.

        Raises:
            Exception: Whatever a detector raises.
        """
        return self._found(text, looks(text))

    def _found(self, text: str, seen: int) -> list[tuple[int, int, str]]:
        rules = self.load()
        every: list[tuple[int, int, int, str]] = []
        if seen & (PAIR | OPTION) and self._by_name:
            # After the others where they begin at the same place and end there, too: they say more.
            every += [(begin, -end, 99, NAME) for begin, end in self._pairs(text, self._names)]
        if seen & OPTION and self._by_name:
            every += [(begin, -end, 99, NAME) for begin, end in self._options(text)]
        for place, (needs, name, rule) in enumerate(rules):
            if seen & needs or not needs:
                every += [(begin, -end, place, name) for begin, end in rule(text) if end > begin]
        if self._detector is not None:
            every += [(begin, -end, 100, name) for begin, end, name in _detected(self._detector, text) if end > begin]
        if not every:
            return []
        every.sort()
        found: list[tuple[int, int, str]] = []
        last, by = 0, ""
        for first, less, _, name in every:
            begin, end = max(first, last), -less
            # What a password before an `@` and a host look like together.
            if end <= last or (first < last and by == "url" and name in ("email", NAME)):
                continue
            if self._allowed and self._is_allowed(text[begin:end]):
                continue
            if text.startswith("[redacted:", begin) and (mark := MARK.match(text, begin)) and end - mark.end() < _LEAST:
                continue
            found.append((begin, end, name))
            last, by = end, name
        return found

    def load(self) -> list[tuple[int, str, Rule]]:
        """The rules of the plan in force, loaded if they are not."""
        loaded = self._rules
        if loaded is None or loaded[0] is not self.plan:
            loaded = self._rules = self._loaded(self.plan)
        return loaded[1]

    def _loaded(self, plan: Plan) -> tuple[Plan, list[tuple[int, str, Rule]]]:
        # Only here: most of what it costs is patterns, which a process without secrets never needs.
        from otelweir.pipeline.redact.commands import options
        from otelweir.pipeline.redact.own import compiled
        from otelweir.pipeline.redact.pairs import pairs
        from otelweir.pipeline.redact.rules import RULES, matches

        self._pairs, self._options = pairs, options
        rules = [(NEEDS.get(name, 0), name, rule) for name, rule in RULES.items() if name in plan.rules]
        rules += [(0, own.name, matches(compiled(own.pattern))) for own in plan.own]
        return plan, rules

    def _without(self, text: str, found: list[tuple[int, int, str]]) -> str:
        parts: list[str] = []
        at = 0
        key = self.plan.key.encode()
        for begin, end, name in found:
            parts += (text[at:begin], replaced(name, text[begin:end], self.plan.action_of(name), key))
            at = end
            self._count(name)
        parts.append(text[at:])
        return "".join(parts)

    def _is_allowed(self, text: str) -> bool:
        return any(pattern.fullmatch(text) for pattern in self._allowed)

    def _failed(self, error: Exception) -> str:
        self.failed(error)
        return FAILED

    def failed(self, error: Exception) -> None:
        """Count and report that something could not be looked at, without the error's words: they may hold a secret."""
        self._count(FAILURE)
        errors.warn(errors.REDACT_FAILED, f"{type(error).__name__} in {_where(error)}")


def _detected(detector: Detector, text: str) -> list[tuple[int, int, str]]:
    """
    Raises:
        RuntimeError: The detector gave up the whole process, as command lines do that are called as libraries.
    """
    try:
        return list(detector(text))
    except SystemExit:
        raise RuntimeError from None


def _remember(text: str, texts: set[str]) -> None:
    """Keep a text that was found clean, if it is short."""
    if len(text) < _SHORT and type(text) is str:
        if len(texts) >= _MAX_TEXTS:
            texts.clear()
        texts.add(text)


def _keep(name: str, keys: set[str]) -> None:
    """Keep a name that is clean, and whose value need not be a secret, if it is short."""
    if len(name) < _SHORT:
        if len(keys) >= _MAX_KEYS:
            keys.clear()
        keys.add(name)


class _Gone:
    """Stands for a value that is left out."""


_GONE: Final = _Gone()


class _Walk:
    """Where one is within a value: not in itself, and not in too much of it."""

    __slots__ = ("_inside", "_left")

    def __init__(self, inside: tuple[int, ...] = (), left: list[int] | None = None) -> None:
        self._inside = inside
        self._left = [_MAX_CONTAINERS] if left is None else left

    def down(self, container: object) -> _Walk | None:
        """Into a container; None when it is within itself, or too deep.

        Raises:
            OverflowError: There are too many containers.
        """
        self._left[0] -= 1
        if self._left[0] < 0:
            raise OverflowError
        if len(self._inside) >= _MAX_DEPTH or id(container) in self._inside:
            return None
        return _Walk((*self._inside, id(container)), self._left)


def _text(value: object) -> str:
    """What `str` says, or the type's name where it raises."""
    try:
        return str.__str__(str(value))
    except Exception:  # noqa: BLE001 - the value's own code may do anything
        return f"<{type(value).__name__}>"


def _is(one: object, other: object) -> bool:
    return one is other


def _fresh(name: str, taken: Mapping[Any, Any], numbers: dict[str, int]) -> str:
    """A name that is not taken; two that differed in what was hidden must not become one.

    Args:
        numbers: How far each name has come, so that many of one are not counted through each time.
    """
    if name not in taken:
        return name
    number = numbers.get(name, 2)
    while f"{name}#{number}" in taken:
        number += 1
    numbers[name] = number + 1
    return f"{name}#{number}"


def _where(error: BaseException) -> str:
    """The function that raised."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace.tb_frame.f_code.co_name if trace is not None else "nowhere"


class Redactor:
    """Hides the secrets of all signals, each by its own plan.

    Args:
        plan: What the settings say.
        detector: Looks at texts in addition.

    Attributes:
        plan: What the settings say.
    """

    def __init__(self, plan: Plan | None = None, detector: Detector | None = None) -> None:
        self.plan = plan or Plan()
        self._counts: dict[tuple[str, Lane], int] = {}
        # Reentrant: the end of an abandoned stream, or a signal's handler, may come in between in the same thread.
        self._lock = threading.RLock()
        self._scrubbers = {lane: Scrubber(self.plan, self._counter(lane), detector) for lane in LANES}
        self._warn(self.plan)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._after_fork)

    def __repr__(self) -> str:
        return f"<Redactor {sum(self._counts.values())} hidden>"

    def of(self, signal: Lane) -> Scrubber:
        """What hides the secrets of a signal."""
        return self._scrubbers[signal]

    def load(self) -> None:
        """Load the rules now, 10 to 20 ms, and not with the first text that looks as if it held a secret."""
        for scrubber in self._scrubbers.values():
            scrubber.load()

    def apply(self, section: Mapping[str, Any] | None) -> None:
        """Go by the `redact` section of a policy from now on; None for the settings alone.

        Args:
            section: Plain values, in which `section.flaws` finds nothing.
        """
        for lane, scrubber in self._scrubbers.items():
            plan = layered(self.plan, section, lane)
            if plan != scrubber.plan:
                scrubber.use(plan)
                self._warn(plan)

    def counts(self) -> dict[tuple[str, Lane], int]:
        """How much was hidden since the process began, by rule and signal."""
        with self._lock:
            return dict(self._counts)

    def _counter(self, lane: Lane) -> Callable[[str], None]:
        def count(rule: str) -> None:
            with self._lock:
                self._counts[rule, lane] = self._counts.get((rule, lane), 0) + 1

        return count

    def _after_fork(self) -> None:
        self._lock = threading.RLock()
        self._counts = {}

    @staticmethod
    def _warn(plan: Plan) -> None:
        if plan.hashes and not plan.key:
            errors.warn(errors.REDACT_NO_KEY, "hash is asked for and WEIR_REDACT_KEY is not set")
