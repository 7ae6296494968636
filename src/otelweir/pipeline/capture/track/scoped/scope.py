"""What `otelweir.context` says about everything below it: session, user, tags, metadata."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

from otelweir.pipeline.capture.track.hidden import HIDDEN, is_hidden
from otelweir.pipeline.capture.values import clean
from otelweir.signals import AnyValue

SESSION: Final = "session.id"
CONVERSATION: Final = "gen_ai.conversation.id"
"""Backends know one of the two; they are always equal."""

USER: Final = "user.id"
TAGS: Final = "weir.tags"
METADATA: Final = "weir.metadata."

MAX_TEXT: Final = 1024
"""Characters of an id, a tag or a value of metadata."""

MAX_TAGS: Final = 64
MAX_METADATA: Final = 64
BAGGAGE: Final = (SESSION, USER, TAGS)
_MAX_BAGGAGE: Final = 256


@dataclass(frozen=True, slots=True)
class Scope:
    """What holds in a part of the program.

    Attributes:
        attributes: As every span and log record gets them. Must not be changed.
    """

    session: str | None = None
    user: str | None = None
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, AnyValue] = field(default_factory=dict)
    attributes: Mapping[str, AnyValue] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        found: dict[str, AnyValue] = {}
        if self.session is not None:
            found[SESSION] = found[CONVERSATION] = self.session
        if self.user is not None:
            found[USER] = self.user
        if self.tags:
            found[TAGS] = list(self.tags)
        for name, value in self.metadata.items():
            found[METADATA + name] = value
        object.__setattr__(self, "attributes", found)

    def within(self, outer: Scope | None) -> Scope:
        """This scope inside of another: what it does not say is as outside; tags and metadata add up."""
        if outer is None:
            return self
        return Scope(
            outer.session if self.session is None else self.session,
            outer.user if self.user is None else self.user,
            tuple(dict.fromkeys((*outer.tags, *self.tags)))[:MAX_TAGS],
            {**outer.metadata, **self.metadata},
        )

    def baggage(self) -> dict[str, str]:
        """What goes to other services, where that is wanted."""
        found = {SESSION: self.session, USER: self.user, TAGS: ",".join(self.tags)}
        found |= {METADATA + name: value for name, value in self.metadata.items() if isinstance(value, str)}
        return {name: text[:_MAX_BAGGAGE] for name, text in found.items() if text}


def scope_of(
    session: object = None,
    user: object = None,
    tags: Iterable[object] | str | None = None,
    metadata: Mapping[str, object] | None = None,
) -> Scope:
    """A scope of values as users give them; ids and tags become text."""
    return Scope(text_of(session), text_of(user), tags_of(tags), metadata_of(metadata))


def scope_of_baggage(entries: Mapping[str, object]) -> Scope | None:
    """What another service said; None where it said nothing."""
    known = {name: value for name, value in entries.items() if type(value) is str}
    session, user, tags = (known.get(name) for name in BAGGAGE)
    metadata = {
        name.removeprefix(METADATA): clean(value[:_MAX_BAGGAGE])
        for name, value in known.items()
        if name.startswith(METADATA)
    }
    if not (session or user or tags or metadata):
        return None
    return Scope(
        text_of(session[:_MAX_BAGGAGE]) if session else None,
        text_of(user[:_MAX_BAGGAGE]) if user else None,
        tags_of(tags[:_MAX_BAGGAGE].split(",")) if tags else (),
        dict(list(metadata.items())[:MAX_METADATA]),
    )


def tags_of(tags: Iterable[object] | str | None) -> tuple[str, ...]:
    """Tags as text, each once; what is no collection is one tag. Never raises."""
    if tags is None:
        return ()
    given: tuple[object, ...] = (tags,)
    if not issubclass(type(tags), str):
        try:
            given = tuple(islice(tags, MAX_TAGS))
        except Exception:  # noqa: BLE001 - no collection, or one with code of its own
            pass
    return tuple(dict.fromkeys(text for tag in given if (text := text_of(tag))))


def metadata_of(metadata: Mapping[str, object] | None) -> dict[str, AnyValue]:
    """Metadata by name: texts, numbers and truth values as they are, all else as JSON. Never raises."""
    if metadata is None:
        return {}
    try:
        given: list[tuple[object, object]] = list(islice(metadata.items(), MAX_METADATA))
    except Exception:  # noqa: BLE001 - no mapping, or one with code of its own
        given = [("value", metadata)]
    found: dict[str, AnyValue] = {}
    for key, value in given:
        name = text_of(key)
        if name:
            found[name] = HIDDEN if is_hidden(name) else _scalar(value)
    return found


def _scalar(value: object) -> AnyValue:
    if type(value) is str:
        return clean(value[:MAX_TEXT])
    if type(value) is bool or type(value) is float or (type(value) is int and -(2**63) <= value < 2**63):
        return value
    return _json(value)


def _json(value: object) -> str:
    # Only here, as it is much to load for who tracks nothing.
    from otelweir.pipeline.capture.track.content import content_of

    return content_of(value, MAX_TEXT).text


def text_of(value: Any) -> str | None:
    """Whatever is given as an id, a name or a tag, as text; None for None. Never raises."""
    if value is None:
        return None
    if type(value) is str:
        return clean(value[:MAX_TEXT])
    text = _json(value)
    # Ids are often UUIDs: as text, without the quotation marks of JSON.
    return text[1:-1] if text.startswith('"') and "\\" not in text else text
