"""The files as they lie there: the collector takes them, and they say what the documentation says they do."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from tests.collector.conftest import CONFIG, OTELCOL

CONFIGURATIONS = sorted(path.name for path in CONFIG.glob("*.yaml") if not path.name.startswith("builder"))
ADDS_TO = {
    "gateway-clickhouse.yaml": "gateway.yaml",
    "gateway-kafka-read.yaml": "gateway.yaml",
    "gateway-kafka-write.yaml": "gateway-balancer.yaml",
}
"""Files that are given to the collector after another one."""


class TestEachConfiguration:
    @pytest.mark.parametrize("name", CONFIGURATIONS)
    def test_is_valid_as_it_stands(self, name: str) -> None:
        """Without any variable set."""
        files = [ADDS_TO[name], name] if name in ADDS_TO else [name]
        done = subprocess.run(
            [str(OTELCOL), "validate", *(f"--config={CONFIG / file}" for file in files)],
            env={"PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")

    @pytest.mark.parametrize("name", CONFIGURATIONS)
    def test_stands_in_the_readme(self, name: str) -> None:
        """With its variables, which the same test as for all documentation keeps up to date."""
        readme = (CONFIG / "README.md").read_text()
        assert f"]({name})" in readme
        assert re.search(rf"<!-- generated: collector .*\b{re.escape(name)}", readme)


class TestTheManifests:
    def test_differ_only_where_they_say_so(self) -> None:
        """What is tested is what the full one builds, less what cannot be had here."""

        def modules(path: Path) -> set[str]:
            return set(re.findall(r"gomod: (\S+) ", path.read_text()))

        full, tested = modules(CONFIG / "builder.yaml"), modules(CONFIG / "builder-tested.yaml")
        assert tested <= full
        assert {module.rsplit("/", 1)[1] for module in full - tested} == {
            "drainprocessor",
            "failoverconnector",
            "routingconnector",
        }
