"""A package's face is its promise: what `__all__` names is there, what is visible is named, and all else is hidden."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys
import types

import pytest

import otelweir

PACKAGES = [
    "otelweir",
    *(found.name for found in pkgutil.walk_packages(otelweir.__path__, "otelweir.", onerror=print) if found.ispkg),
]
FACES = [name for name in PACKAGES if hasattr(importlib.import_module(name), "__all__")]


def visible(module: types.ModuleType) -> set[str]:
    """The public names that `dir` shows and that are Weir's own: not what the file imported for itself.

    Submodules appear when somebody imported them; they are no part of the face.
    """
    return {
        name
        for name in dir(module)
        if not name.startswith("_") and name not in ("annotations", "TYPE_CHECKING")
        if not isinstance(getattr(module, name), types.ModuleType)
        if getattr(getattr(module, name), "__module__", "otelweir").startswith("otelweir")
    }


def test_the_packages_are_found() -> None:
    assert {"otelweir", "otelweir.distro", "otelweir.pipeline.capture", "otelweir.cli"} <= set(PACKAGES)


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_says_in_one_sentence_what_it_is(name: str) -> None:
    first = (importlib.import_module(name).__doc__ or "").strip().partition("\n")[0]
    assert first.endswith("."), f"{name} has no docstring of one sentence"


@pytest.mark.parametrize("name", FACES)
def test_a_face_names_what_it_shows_and_shows_what_it_names(name: str) -> None:
    module = importlib.import_module(name)
    promised = set(module.__all__)
    assert len(promised) == len(module.__all__)
    for promise in promised:
        assert getattr(module, promise) is not None, f"{name}.{promise} is promised but missing"
    assert visible(module) - promised == set()


@pytest.mark.parametrize("name", FACES)
def test_a_face_can_be_listed_without_importing_what_it_shows(name: str) -> None:
    """Names that are loaded when they are used appear in `dir` all the same."""
    module = importlib.import_module(name)
    assert set(module.__all__) <= set(dir(module))


@pytest.mark.parametrize("heavy", ["pydantic", "click", "rich", "grpc", "sqlite3"])
def test_importing_weir_does_not_import(heavy: str) -> None:
    """What only a policy, a command or the local backend needs stays out of an application's start."""
    use = "[getattr(otelweir, name) for name in otelweir.__all__]"
    code = f"import sys, otelweir; {use}; sys.exit({heavy!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0
