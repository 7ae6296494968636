"""How a setting is tied to its environment variable.

Each folder's `settings.py` declares a section: a frozen dataclass whose fields are made by `setting`. `settings.py` at
the top gathers the sections. The string below a field is its documentation.

Plain dataclasses, because settings are read while the application starts: importing pydantic there would cost more
than all the rest of Weir (docs/decisions/0002-settings-without-pydantic.md).
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import math
import re
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, Literal, TypeVar, cast

from otelweir import errors

T = TypeVar("T")
Origin = Literal["default", "variable", "code"]


@dataclass(frozen=True, slots=True)
class Form(Generic[T]):
    """What a setting accepts.

    Attributes:
        words: The allowed values, as a user would say them: "a whole number, 1 or more".
        read: Gives the value; raises ValueError or TypeError for what is not allowed. Takes the text of a variable or
            a value given in code.
        secret: Whether the value must never be shown.
        shown: Gives a value, good or bad, as it may be shown; None where all of it may be.
    """

    words: str
    read: Callable[[Any], T]
    secret: bool = False
    shown: Callable[[str], str] | None = None


@dataclass(frozen=True, slots=True)
class Var:
    """The environment variable of a field: its name and what it accepts."""

    name: str
    form: Form[Any]


class Secret(str):
    """Text that does not show itself."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "Secret('***')"


def setting(variable: str, default: T, form: Form[Any]) -> T:
    """A field of a section: its variable, its default, what it accepts."""
    # A mapping as a default is shared by all instances; they are frozen and nobody writes to it.
    return dataclasses.field(default_factory=lambda: default, metadata={"var": Var(variable, form)})


def variables(section: type) -> Mapping[str, Var]:
    """The variable of each field of a section, by field name."""
    return {field.name: field.metadata["var"] for field in dataclasses.fields(section)}


def read(section: type[T], environ: Mapping[str, str], code: Mapping[str, Any] = {}) -> tuple[T, dict[str, Origin]]:
    """A section as code and the environment give it; code wins over variables, variables over defaults.

    A value that cannot be used is reported once, with the setting's name, the value and the allowed form, and the next
    best one applies.

    Args:
        section: The dataclass.
        environ: The environment. Empty values count as unset.
        code: Settings given in code, by field; None counts as not given.

    Returns:
        The section, and by field where its value comes from; a field that is missing has its default.
    """
    default = section()
    values: dict[str, Any] = {}
    origins: dict[str, Origin] = {}
    for name, var in variables(section).items():
        origin: Origin
        for origin, given in (("code", code.get(name)), ("variable", environ.get(var.name, "").strip() or None)):
            if given is None:
                continue
            try:
                values[name], origins[name] = var.form.read(given), origin
                break
            except (ValueError, TypeError, AttributeError) as error:
                _report(var, given, str(error), getattr(default, name))
    return section(**values), origins


def _report(var: Var, given: object, reason: str, default: object) -> None:
    value = "***" if var.form.secret else repr(var.form.shown(str(given)) if var.form.shown else given)
    # int() and float() speak of literals and bases; the allowed form says it better.
    why = f" ({reason})" if reason and "literal" not in reason and "convert" not in reason else ""
    errors.warn(errors.BAD_VALUE, f"{var.name}={value} is not {var.form.words}{why}; the default is {shown(default)}")


def documentation(section: type) -> Mapping[str, str]:
    """The documentation of each field of a section: the string below it in the source."""
    body = ast.parse(textwrap.dedent(inspect.getsource(section))).body[0]
    assert isinstance(body, ast.ClassDef)
    found: dict[str, str] = {}
    for statement, after in zip(body.body, body.body[1:], strict=False):
        match statement, after:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                found[name] = inspect.cleandoc(text).replace("\n", " ")
    return found


def one_of(*allowed: str) -> Form[Any]:
    def read(value: object) -> str:
        if isinstance(value, str) and (word := value.strip().lower()) in allowed:
            return word
        raise ValueError

    return Form(f"{', '.join(allowed[:-1])} or {allowed[-1]}", read)


def whole(least: int, most: int | None = None) -> Form[int]:
    def read(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, (int, str)):
            raise TypeError
        number = int(value)
        if number < least or (most is not None and number > most):
            raise ValueError
        return number

    return Form(
        f"a whole number from {least} to {most}" if most is not None else f"a whole number, {least} or more", read
    )


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise TypeError
    number = float(value)
    if not math.isfinite(number):
        raise ValueError
    return number


def number(*, above: float | None = None, least: float | None = None) -> Form[float]:
    def read(value: object) -> float:
        found = _number(value)
        if (above is not None and found <= above) or (least is not None and found < least):
            raise ValueError
        return found

    return Form(f"a number above {above:g}" if above is not None else f"a number, {least:g} or more", read)


_SIZE: Final = re.compile(r"(\d+)\s*([kmg]i?b?|b)?", re.IGNORECASE)
_BYTES: Final = {"": 1, "b": 1, "k": 2**10, "m": 2**20, "g": 2**30}


def size(least: int) -> Form[int]:
    """A size in bytes; text may name another unit, of 1024 each: `64KiB`, `512MiB`, `2G`."""

    def read(value: object) -> int:
        if isinstance(value, str):
            found = _SIZE.fullmatch(value.strip())
            if not found:
                raise ValueError
            value = int(found[1]) * _BYTES[(found[2] or "")[:1].lower()]
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError
        if value < least:
            raise ValueError
        return value

    return Form(f"bytes, {least} or more (or a number with KiB, MiB or GiB)", read)


_DURATION: Final = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*(ms|s|m|h)?")
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, None: 1.0}


def seconds(least: float, most: float | None = None) -> Form[float]:
    """A time in seconds; text may name another unit: `500ms`, `5m`."""

    def read(value: object) -> float:
        if isinstance(value, str):
            found = _DURATION.fullmatch(value.strip().lower())
            if not found:
                raise ValueError
            value = float(found[1]) * _UNITS[found[2]]
        time = _number(value)
        if time < least or (most is not None and time > most):
            raise ValueError
        return time

    span = f"from {least:g} to {most:g}" if most is not None else f"{least:g} or more"
    return Form(f"seconds, {span} (or a number with ms, s, m or h)", read)


_FLAGS: Final = {
    "true": True,
    "1": True,
    "yes": True,
    "on": True,
    "false": False,
    "0": False,
    "no": False,
    "off": False,
}


def flag() -> Form[bool]:
    def read(value: object) -> bool:
        if isinstance(value, bool):
            return value
        if isinstance(value, str) and (word := value.strip().lower()) in _FLAGS:
            return _FLAGS[word]
        raise ValueError

    return Form("true or false", read)


def text(words: str, pattern: str = ".+") -> Form[str]:
    def read(value: object) -> str:
        found = str(value).strip() if hasattr(value, "__fspath__") or isinstance(value, str) else ""
        if not re.fullmatch(pattern, found):
            raise ValueError
        return found

    return Form(words, read)


def url(words: str) -> Form[str]:
    """A web address; credentials in it are not shown."""
    return Form(words, text(words, r"(?i)https?://.+").read, shown=without_credentials)


def file(words: str, *, for_urls: str) -> Form[str]:
    """A path.

    Args:
        for_urls: The variable that takes addresses; this one refuses them.
    """

    def read(value: object) -> str:
        found = text(words).read(value)
        if re.match(_SCHEME, found):
            raise ValueError(f"set {for_urls} for a URL")
        return found

    def show(value: str) -> str:
        return without_credentials(value) if re.match(_SCHEME, value) else scrubbed(value)

    return Form(words, read, shown=show)


def secret(words: str) -> Form[Secret]:
    return Form(words, lambda value: Secret(text(words).read(value)), secret=True)


def rates(defaults: Mapping[str, float], refused: Mapping[str, str]) -> Form[dict[str, float]]:
    """Numbers from 0 to 1 by name: `debug=0.05,info=0.2`. A name that is not given keeps its default.

    Args:
        defaults: The names and their defaults.
        refused: Names that may not be given, with the reason.
    """

    def read(value: object) -> dict[str, float]:
        pairs: dict[str, object] = {}
        if isinstance(value, str):
            for part in filter(None, (part.strip() for part in value.split(","))):
                name, sign, share = part.partition("=")
                if not sign:
                    raise ValueError(f"{part!r} has no '='")
                pairs[name.strip().lower()] = share
        else:
            pairs.update(cast("Mapping[str, object]", value))
        found = dict(defaults)
        for name, given in pairs.items():
            if name in refused:
                raise ValueError(f"{name}: {refused[name]}")
            if name not in defaults:
                raise ValueError(f"{name!r} is not one of {', '.join(defaults)}")
            share_kept = _number(given)
            if not 0 <= share_kept <= 1:
                raise ValueError(f"{name}: {share_kept:g} is not from 0 to 1")
            found[name] = share_kept
        return found

    example = ",".join(f"{name}={share:g}" for name, share in list(defaults.items())[:3])
    return Form(f"pairs such as {example}, with numbers from 0 to 1", read)


def shown(value: object) -> str:
    """A value as one would write it in a variable; secrets masked."""
    match value:
        case None:
            return "unset"
        case Secret():
            return "***"
        case bool():
            return str(value).lower()
        case Mapping():
            return ",".join(f"{key}={item:g}" for key, item in value.items())
        case float():
            return f"{value:g}"
    return str(value)


_SCHEME: Final = r"(?i:https?:/*|grpcs?:/*|[a-z][a-z0-9+.-]*://)"
_USER_INFO: Final = re.compile(rf"({_SCHEME})?.*@", re.DOTALL)
_USER_INFO_WITHIN: Final = re.compile(
    # with a scheme, or after the start of a word when there is a colon as between name and password
    rf"({_SCHEME})\S*@|(?<![^\s='\"(])[^\s@='\"(]*:\S*@"
)
# Punctuation that ends the address belongs to the sentence.
_QUERY: Final = re.compile(r"([?&][^=&#\s]+=)[^&#\s]+?(?=[:;,.)'\"]*(?:[&#\s]|$))")


def without_credentials(address: str) -> str:
    """An address, well-formed or not, as it may be shown: nothing before the last `@`, no values of the query.

    >>> without_credentials("https://me:pw@example.com/?token=abc")
    'https://***@example.com/?token=***'
    """
    return _QUERY.sub(r"\1***", _USER_INFO.sub(lambda found: f"{found[1] or ''}***@", address, count=1))


def scrubbed(sentence: str) -> str:
    """A text without the credentials and the query values of the addresses in it."""
    return _QUERY.sub(r"\1***", _USER_INFO_WITHIN.sub(lambda found: f"{found[1] or ''}***@", sentence))
