"""The tables in the documentation are what the code says, and every problem has its entry."""

from __future__ import annotations

import re
import runpy
import socket
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from otelweir import errors
from otelweir.devserver import DevServer
from otelweir.distro import warn_of_other_distributions
from otelweir.distro.exporters import Target, exporters

ROOT = Path(__file__).resolve().parents[2]
GENERATE: dict[str, Any] = runpy.run_path(str(ROOT / "docs" / "generate.py"))
PAGES: list[Path] = GENERATE["pages"]()
TROUBLESHOOTING = (ROOT / errors.DOCS).read_text(encoding="utf-8")
ENTRIES = {
    match[1]: match[2]
    for match in re.finditer(r"^### (WEIR-\S+)\n(.*?)(?=^#|\Z)", TROUBLESHOOTING, re.DOTALL | re.MULTILINE)
}


class TestGeneratedTables:
    def test_stand_in_the_pages_on_settings_and_on_the_resource(self) -> None:
        assert {"settings.md", "resource.md"} <= {page.name for page in PAGES}

    @pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
    def test_are_what_the_code_says(self, page: Path) -> None:
        text = page.read_text(encoding="utf-8")
        assert text == GENERATE["filled"](text), f"{page.name} is out of date: run `{GENERATE['COMMAND']}`"


class TestTroubleshooting:
    def test_has_an_entry_for_every_problem_and_no_other(self) -> None:
        assert list(ENTRIES) == list(errors.PROBLEMS)

    @pytest.mark.parametrize("code", errors.PROBLEMS)
    def test_an_entry_says_what_it_is_shows_the_message_and_what_to_do(self, code: str) -> None:
        problem, entry = errors.PROBLEMS[code], ENTRIES[code]
        example = re.search(r"```text\n(.*?)\n```", entry, re.DOTALL)
        assert example
        detail = example[1].removeprefix(f"{code}: ").partition(f" {problem.remedy}")[0]
        assert example[1] == errors.message(problem, detail)
        assert " ".join(entry.split()).startswith(f"**{problem.title}.**")
        assert "*What to do:*" in entry

    def test_a_message_links_to_the_anchor_of_its_entry(self) -> None:
        """The heading is the code alone, so that its anchor is the code in lower case."""
        for code, problem in errors.PROBLEMS.items():
            assert errors.message(problem, "x").endswith(f"See docs/troubleshooting.md#{code.lower()}")
            assert f"\n### {code}\n" in TROUBLESHOOTING


def test_links_within_the_documentation_lead_somewhere() -> None:
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
    anchors = {
        page: {
            re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")
            for heading in re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
        }
        for page in pages
    }
    broken = []
    for page in pages:
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
            if re.match(r"[a-z]+:", target):
                continue
            path, _, anchor = target.partition("#")
            other = (page.parent / path).resolve() if path else page
            if not other.exists() or (anchor and anchor not in anchors.get(other, set())):
                broken.append(f"{page.name}: {target}")
    assert broken == []


class TestShownMessages:
    """What a page shows must be what Weir prints: whoever searches for a message searches for its words."""

    def test_a_port_in_use(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            with pytest.raises(errors.ServerError) as failed:
                DevServer(port=port)
        assert str(failed.value).replace(str(port), "4318") in TROUBLESHOOTING

    def test_a_host_that_does_not_exist(self) -> None:
        with pytest.raises(errors.ServerError) as failed:
            DevServer(host="bogus.invalid")
        assert str(failed.value) in TROUBLESHOOTING

    def test_two_distributions(self, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
        values = {"distro": "opentelemetry.distro:OpenTelemetryDistro", "weir": "otelweir.distro:WeirDistro"}
        found = [EntryPoint(name, value, "opentelemetry_distro") for name, value in values.items()]
        monkeypatch.setattr("otelweir.distro.entry_points.entry_points", lambda group: found)
        warn_of_other_distributions({"OTEL_PYTHON_CONFIGURATOR": "weir"})
        assert caplog.messages[0] in TROUBLESHOOTING

    def test_an_exporter_that_nobody_provides(self, caplog: pytest.LogCaptureFixture) -> None:
        exporters("logs", {"OTEL_LOGS_EXPORTER": "otlp_grpc"}, Target())
        assert caplog.messages[0] in TROUBLESHOOTING


class TestExamples:
    @pytest.mark.parametrize("path", sorted(ROOT.glob("examples/*.py")), ids=lambda path: path.stem)
    def test_install_what_they_go_on_to_run(self, path: Path) -> None:
        text = path.read_text(encoding="utf-8")
        assert "weir dev" in text
        assert re.search(r"pip install 'otelweir\[(\w+,)*dev\]'$", text, re.MULTILINE)


def test_the_wheel_has_the_page_that_messages_name() -> None:
    built = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]
    assert built["targets"]["wheel"]["force-include"] == {errors.DOCS: f"otelweir/{errors.DOCS}"}
