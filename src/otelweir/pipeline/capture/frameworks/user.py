"""The id of a user object, found without making it do anything.

A log call must never lead to a query. So a value is taken that the object already holds; an attribute that would have
to be loaded, as on an expired row of an object-relational mapper, counts as unknown.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from types import MemberDescriptorType
from typing import Final
from uuid import UUID

_NAMES: Final = ("id", "pk", "user_id", "sub", "uid", "username", "name")
_CLAIMS: Final = ("id", "sub", "user_id", "uid")
_MAX: Final = 128


def user_id(user: object) -> str | None:
    """The id that a user object holds; None for nobody.

    Args:
        user: A model, a dataclass, a mapping of claims, or the id itself.
    """
    if user is None or isinstance(user, (str, int, UUID)):
        return _text(user)
    if isinstance(user, Mapping):
        return next(filter(None, (_text(user.get(name)) for name in _CLAIMS)), None)
    held = getattr(user, "__dict__", {})
    for name in _NAMES:
        value = held.get(name)
        if value is None and isinstance(slot := inspect.getattr_static(type(user), name, None), MemberDescriptorType):
            value = slot.__get__(user) if _filled(slot, user) else None
        if found := _text(value):
            return found
    return None


def _filled(slot: MemberDescriptorType, user: object) -> bool:
    try:
        slot.__get__(user)
    except AttributeError:
        return False
    return True


def _text(value: object) -> str | None:
    if isinstance(value, bool) or not isinstance(value, (str, int, UUID)):
        return None
    return str(value)[:_MAX] or None
