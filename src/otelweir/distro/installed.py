"""What is installed in this environment: packages, and the entry points they register."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry point.

    Attributes:
        name: What a variable would call it.
        package: The distribution that registers it.
        load: Imports it; raises whatever the import raises.
    """

    name: str
    package: str
    load: Callable[[], object] = field(compare=False, repr=False, default=lambda: None)


@dataclass(frozen=True, slots=True)
class Installed:
    """Packages and entry points.

    Attributes:
        versions: By package name in lower case with hyphens.
        groups: Entry points by group, in the order in which OpenTelemetry's launcher finds them.
        requires: The requirements of each package, as its metadata has them.
    """

    versions: Mapping[str, str] = field(default_factory=dict)
    groups: Mapping[str, Sequence[Entry]] = field(default_factory=dict)
    requires: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @classmethod
    def here(cls) -> Installed:
        """What the interpreter that runs this can import."""
        versions: dict[str, str] = {}
        requires: dict[str, Sequence[str]] = {}
        groups: dict[str, list[Entry]] = {}
        for found in metadata.distributions():
            name = normalized(found.metadata["Name"] or "")
            # What comes first on the path hides the rest, as for imports.
            if not name or name in versions:
                continue
            versions[name] = found.version
            requires[name] = found.requires or ()
            for point in found.entry_points:
                if point.group.startswith("opentelemetry_"):
                    groups.setdefault(point.group, []).append(Entry(point.name, name, point.load))
        return cls(versions, groups, requires)

    def unloaded(self) -> Installed:
        """The same, with entry points whose loading imports nothing."""
        groups = {group: [Entry(one.name, one.package) for one in entries] for group, entries in self.groups.items()}
        return Installed(self.versions, groups, self.requires)

    def entries(self, group: str) -> Sequence[Entry]:
        return self.groups.get(group, ())

    def entry(self, group: str, name: str) -> Entry | None:
        return next((entry for entry in self.entries(group) if entry.name == name), None)


def normalized(name: str) -> str:
    """A package's name as the index compares it.

    >>> normalized("Flask_SQLAlchemy")
    'flask-sqlalchemy'
    """
    return re.sub(r"[-_.]+", "-", name).lower()
