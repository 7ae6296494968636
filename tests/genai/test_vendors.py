"""Several instrumentations of one library: one is used, and it is said which."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelweir.distro.vendors import family, preferred

GENAI = "opentelemetry-instrumentation-genai-openai"
OLDER = "opentelemetry-instrumentation-openai-v2"
OPENLLMETRY = "opentelemetry-instrumentation-openai"
OPENINFERENCE = "openinference-instrumentation-openai"
LAUNCHER = str(Path(sys.executable).with_name("opentelemetry-instrument"))


class TestTheChoice:
    def test_knows_whose_a_package_is(self) -> None:
        packages = (GENAI, OLDER, OPENLLMETRY, OPENINFERENCE, "opik")
        assert [family(package) for package in packages] == [
            "opentelemetry",
            "opentelemetry",
            "openllmetry",
            "openinference",
            "other",
        ]

    @given(st.permutations([GENAI, OLDER, OPENLLMETRY, OPENINFERENCE]))
    def test_does_not_depend_on_the_order_of_folders(self, packages: list[str]) -> None:
        assert preferred(packages, "opentelemetry") == GENAI
        assert preferred(packages, "openllmetry") == OPENLLMETRY
        assert preferred(packages, "openinference") == OPENINFERENCE
        assert preferred([OLDER, OPENLLMETRY], "openinference") == OLDER


@pytest.fixture
def rival(tmp_path: Path) -> Path:
    """A folder with a package that instruments openai as OpenInference's does, and says so."""
    (tmp_path / "rival.py").write_text(
        textwrap.dedent(
            """
            class Instrumentor:
                def instrument(self, **_):
                    print("the rival is active")
            """
        )
    )
    meta = tmp_path / "openinference_instrumentation_openai-1.0.dist-info"
    meta.mkdir()
    (meta / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {OPENINFERENCE}\nVersion: 1.0\n")
    (meta / "entry_points.txt").write_text("[opentelemetry_instrumentor]\nopenai = rival:Instrumentor\n")
    return tmp_path


PROGRAM = """
import openai
print(type(openai.resources.chat.completions.Completions.__dict__["create"]).__name__)
"""


def test_under_the_launcher_one_is_active_and_it_is_said_which(rival: Path) -> None:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("OTEL_", "WEIR_"))}
    path = os.pathsep.join(filter(None, (str(rival), os.environ.get("PYTHONPATH"))))
    off = {f"OTEL_{signal}_EXPORTER": "none" for signal in ("TRACES", "METRICS", "LOGS")}
    done = subprocess.run(
        [LAUNCHER, sys.executable, "-c", PROGRAM],
        env={**clean, **off, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == "FunctionWrapper\n"
    used, left = "opentelemetry.instrumentation.genai.openai", "rival"
    assert f"WEIR-GENAI-004: openai is instrumented by {used}, and not by {left}." in done.stderr
