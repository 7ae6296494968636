"""pip, in this process and as verbose as it gets: it resolves, builds and installs packages from a folder."""

# needs: pip
# mypy: ignore-errors
import contextlib
import io
import sys
import zipfile
from pathlib import Path

from pip._internal.cli.main import main as pip


def wheel(folder: Path, name: str, version: str, needs: str = "") -> None:
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as file:
        file.writestr(f"{name}.py", f"version = {version!r}\n")
        needed = f"Requires-Dist: {needs}\n" if needs else ""
        file.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needed}")
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{info}/RECORD", f"{name}.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")


def run(*args: str) -> None:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        pip([*args, "-vvv", "--disable-pip-version-check"])


def main() -> None:
    folder = Path("wheels")
    folder.mkdir()
    for n in range(12):
        for version in ("1.0", "1.1", "2.0"):
            wheel(folder, f"part{n}", version, f"part{n + 1}>=1.0,<2.0" if n < 11 else "")
    wheel(folder, "clash", "1.0", "part1==9.9")
    (folder / "part3-3.0.tar.gz").write_bytes(b"broken")
    (folder / "part4-1.0-cp27-none-win32.whl").write_bytes(b"")
    known = ("--no-index", "--find-links", str(folder), "--no-cache-dir")
    run("install", "--target", "here", *known, "part0", "part5")
    run("install", "--target", "here", *known, "part0==2.0")
    run("install", "--target", "here", "--upgrade", *known, "part0==1.0", "part11")
    run("install", "--target", "here", *known, "clash")
    run("install", "--target", "here", *known, "absent")
    run("download", "--dest", "down", *known, "part2", "part7")
    run("check")
    run("list", "--path", "here")
    run("show", "-f", "packaging")


if __name__ == "__main__":
    sys.exit(main())
