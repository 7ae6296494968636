"""What the launcher costs a process that ends at once: Weir against opentelemetry-distro with both OTLP exporters.

    python benchmarks/startup.py [--rounds 15] [--json]

Each is installed into a virtual environment of its own, made by uv in a temporary folder, so that neither sees the
other's packages. CPU time of the whole process, user and system, by turns.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.harness import arguments, by_turns, ratio, report

ROOT = Path(__file__).resolve().parents[1]


def environment(folder: Path, *packages: str) -> Path:
    """The `bin` folder of a new virtual environment with these packages."""
    subprocess.run(["uv", "venv", "--quiet", "--python", sys.executable, folder], check=True)
    subprocess.run(["uv", "pip", "install", "--quiet", "--python", folder, *packages], check=True)
    return folder / "bin"


def cpu_s(command: list[str | Path]) -> float:
    """CPU seconds of a process."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "WEIR_", "PYTHON"))}
    process = subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, command
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    options = arguments(__doc__, rounds=15)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        program = folder / "nothing.py"
        program.write_text("")
        bins = {
            "weir": environment(folder / "weir", str(ROOT)),
            "opentelemetry-distro": environment(
                folder / "upstream", "opentelemetry-distro", "opentelemetry-exporter-otlp"
            ),
        }
        commands: dict[str, list[str | Path]] = {
            name: [bin_ / "opentelemetry-instrument", bin_ / "python", program] for name, bin_ in bins.items()
        }
        commands["without"] = [bins["weir"] / "python", program]
        found = by_turns(
            {name: lambda _, command=command: cpu_s(command) for name, command in commands.items()},  # type: ignore[misc]
            options.rounds,
            1,
        )
    rows = [
        ratio(found, "weir", "opentelemetry-distro", 1.0),
        ratio(found, "opentelemetry-distro", "without"),
        ratio(found, "without", "without"),
    ]
    report(rows, options.json)


if __name__ == "__main__":
    main()
