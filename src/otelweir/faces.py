"""Faces of packages that import what they show when it is first used.

Importing any part of Weir runs the `__init__` of every package above it; most parts need little of what these show.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module


def lazily(package: str, homes: Mapping[str, str]) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """The `__getattr__` and `__dir__` of a face (PEP 562).

    Args:
        package: The package's `__name__`.
        homes: By name in the face, the module below the package that has it.
    """

    def get(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        found = getattr(import_module(f"{package}.{homes[name]}"), name)
        vars(sys.modules[package])[name] = found  # the next time nobody has to ask
        return found

    return get, lambda: list(homes)
