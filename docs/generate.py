"""Print the tables of the documentation from the code: `uv run python docs/generate.py`.

A Markdown file says where a table goes::

    <!-- generated: settings LogSamplingSettings -->
    <!-- end -->

The blocks are `settings` (of all sections, or of those named), `otel-defaults`, `resource-variables`,
`resource-platforms`, `metrics` (of those whose name begins so) and `collector` (the variables of these configurations).
A test compares the files with what this would write.
"""

from __future__ import annotations

import re
import runpy
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

import yaml

from otelweir import settings
from otelweir.distro.defaults import OTEL_DEFAULTS
from otelweir.pipeline.capture import resource
from otelweir.pipeline.capture.settings import ResourceSettings
from otelweir.selfmetrics.names import INSTRUMENTS
from otelweir.variables import documentation, shown, variables

ROOT: Final = Path(__file__).resolve().parents[1]
COMMAND: Final = "uv run python docs/generate.py"
_BLOCK: Final = re.compile(r"(<!-- generated: (.+?) -->\n).*?(<!-- end -->)", re.DOTALL)
_ENVIRONMENT: Final = re.compile(r"\$\{env:([A-Z0-9_]+)(?::-(.*?))?\}(?:$|[^}])", re.DOTALL)


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def settings_table(*names: str) -> str:
    """The settings of the sections named, else of all."""
    rows = []
    for section in settings.SECTIONS:
        if names and section.__name__ not in names:
            continue
        said = documentation(section)
        for name, var in variables(section).items():
            default = shown(getattr(section(), name))
            rows.append([f"`{var.name}`", f"`{default}`", var.form.words, said[name]])
    return table(["Variable", "Default", "Allowed", "Meaning"], rows)


def otel_defaults() -> str:
    """What the distribution sets of OpenTelemetry's variables."""
    return table(["Variable", "Default"], ([f"`{name}`", f"`{value}`"] for name, value in OTEL_DEFAULTS.items()))


def resource_variables() -> str:
    """From which variables the resource detector takes an attribute."""
    names = variables(ResourceSettings)
    own = {attribute: names[setting].name for setting, attribute in resource.STATED.items()}

    def cells() -> Iterable[list[str]]:
        for attribute in dict.fromkeys((*own, *resource.SOURCES)):
            anywhere = [own[attribute]] if attribute in own else []
            anywhere += resource.SOURCES.get(attribute, ())
            in_a_pod = resource.IN_A_POD.get(attribute, ())
            yield [f"`{attribute}`", _names(anywhere), _names(in_a_pod)]

    return table(["Attribute", "The first of", "In a pod also"], cells())


def resource_platforms() -> str:
    """How platforms are known, and what they tell."""

    def cells() -> Iterable[list[str]]:
        for platform in resource.PLATFORMS:
            facts = [f"`{name}={value}`" for name, value in platform.facts.items()]
            told = [f"`{name}` (`{variable}`)" for name, variable in platform.variables.items()]
            sign = f"`{platform.sign}`" + (f" without `{platform.unless}`" if platform.unless else "")
            yield [sign, ", ".join(facts + told)]

    return table(["Where this is set", "These are told"], cells())


def metrics_table(beginning: str) -> str:
    """The metrics whose name begins so."""
    return table(
        ["Metric", "Instrument", "Unit", "What it says", "Attributes"],
        (
            [f"`{one.name}`", one.kind, f"`{one.unit}`", one.meaning, _names(one.attributes)]
            for one in INSTRUMENTS
            if one.name.startswith(beginning)
        ),
    )


def collector_variables(*files: str) -> str:
    """The variables of configurations in `collector-config/`, with what each sets."""
    found: dict[str, tuple[str, list[str]]] = {}

    def walk(node: yaml.Node, path: str, seen: set[int]) -> None:
        if id(node) in seen:  # an alias: said where its anchor is
            return
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                walk(value, f"{path}.{key.value}" if path else key.value, seen)
        elif isinstance(node, yaml.SequenceNode):
            for item in node.value:
                walk(item, path, seen)
        else:
            for name, default in re.findall(
                r"\$\{env:([A-Z0-9_]+)(?::-(.*?))?\}(?:$|[^}])", node.value + " ", re.DOTALL
            ):
                places = found.setdefault(name, (default, []))[1]
                if path not in places:
                    places.append(path)

    for file in files:
        if (document := yaml.compose((ROOT / "collector-config" / file).read_text(encoding="utf-8"))) is not None:
            walk(document, "", set())
    rows = [
        [f"`{name}`", f"`{' '.join(default.split())}`" if default else "", _names(places)]
        for name, (default, places) in sorted(found.items())
    ]
    return table(["Variable", "Default", "Sets"], rows)


def _names(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


BLOCKS: Final[Mapping[str, Callable[..., str]]] = {
    "settings": settings_table,
    "otel-defaults": otel_defaults,
    "resource-variables": resource_variables,
    "resource-platforms": resource_platforms,
    "metrics": metrics_table,
    "collector": collector_variables,
}


def filled(text: str) -> str:
    """A Markdown text with its blocks as the code has them now."""

    def block(match: re.Match[str]) -> str:
        name, *arguments = match[2].split()
        return f"{match[1]}\n{BLOCKS[name](*arguments)}\n\n{match[3]}"

    return _BLOCK.sub(block, text)


def pages() -> list[Path]:
    """The Markdown files that have blocks."""
    found = [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("src/**/*.md"),
        *ROOT.glob("collector-config/*.md"),
    ]
    return sorted(path for path in found if _BLOCK.search(path.read_text(encoding="utf-8")))


def main() -> None:
    for path in pages():
        text = path.read_text(encoding="utf-8")
        if (now := filled(text)) != text:
            path.write_text(now, encoding="utf-8")
            sys.stdout.write(f"written: {path.relative_to(ROOT)}\n")
    # What the manifests of collector-config/ carry of its configurations.
    runpy.run_path(str(ROOT / "collector-config" / "deploy" / "generate.py"), run_name="__main__")


if __name__ == "__main__":
    main()
