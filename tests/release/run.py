"""Makes a release ready and never uploads it: ``make release``.

Builds sdist and wheel into ``dist/``, checks their metadata and contents, installs the wheel with
each extra alone into an empty environment of every Python that is here, and writes the bill of
materials of an installation with all extras (CycloneDX). CONTRIBUTING.md has the list of what a
person does before and after.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).parents[2]))  # run as a file, by `make`

from tests.release.extras import ROOT, USES

VERSIONS: Final = ("3.11", "3.12", "3.13")

VECTORS: Final = ROOT / "tests" / "data" / "tribes-vectors.json"
"""What a real Tomcat sent: each Python has to read and write the same bytes."""

IMPORTS: Final = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
"""

SESSION: Final = """
from tribes import LocalSessions
sessions = LocalSessions("shop")
sessions.start()
session = sessions.manager("shop").create()
session["n"] = 1
sessions.commit(session)
assert sessions.manager("shop").find(session.id)["n"] == 1
sessions.stop()
"""


def run(*command: str | Path) -> str:
    """Run a command that must succeed; return what it printed."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout


def python_of(version: str) -> str | None:
    """Find an interpreter that runs; some version managers have commands that do not."""
    code = "import sys, venv, ensurepip; print(sys.executable)"
    for name in (sys.executable, f"python{version}", *sorted(pyenv(version))):
        try:
            done = subprocess.run([name, "-c", code], capture_output=True, text=True, check=False)
        except OSError:
            continue
        if done.returncode == 0 and version_of(name) == version:
            return done.stdout.strip()
    return None


def pyenv(version: str) -> list[str]:
    """Name the interpreters that pyenv has of a version."""
    return [str(each) for each in Path.home().glob(f".pyenv/versions/{version}.*/bin/python")]


def version_of(python: str) -> str:
    """Return the minor version of an interpreter."""
    return run(python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])").strip()


def build(dist: Path) -> Path:
    """Build both into an empty ``dist`` and check them; return the wheel."""
    shutil.rmtree(dist, ignore_errors=True)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", dist, ROOT)
    built = sorted(dist.iterdir())
    [wheel] = dist.glob("*.whl")
    run(sys.executable, "-m", "twine", "check", "--strict", *built)
    run(Path(sys.executable).with_name("check-wheel-contents"), wheel)
    print(
        "built and checked:",
        *(f"{each.name} ({each.stat().st_size // 1024} KiB)" for each in built),
    )
    return wheel


def install(python: str, wheel: Path, extra: str, folder: Path) -> Path:
    """Install the wheel with one extra into a new environment and use what it is for."""
    run(python, "-m", "venv", "--without-pip", folder)
    inside = folder / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", inside, "--disable-pip-version-check")
    run(*pip, "install", "--quiet", f"{wheel}[{extra}]" if extra else wheel)
    run(*pip, "check")
    run(inside, "-I", "-c", IMPORTS, *USES[extra])
    run(inside, "-I", "-c", SESSION)
    run(inside, "-I", "-m", "tribes.testing.vectors", VECTORS)
    run(folder / "bin" / "tribes", "--help")
    return inside


def bill_of_materials(wheel: Path, inside: Path, dist: Path) -> None:
    """Write what an installation consists of."""
    version = wheel.name.split("-")[1]
    bill = dist / f"tribes-{version}.cdx.json"
    cyclonedx = Path(sys.executable).with_name("cyclonedx-py")
    project = ("--pyproject", ROOT / "pyproject.toml", "--output-reproducible", "--of", "JSON")
    run(cyclonedx, "environment", *project, "--output-file", bill, inside)
    print(f"wrote {bill.name}")


def main() -> None:
    """Do all of it, or say at which step it ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", action="append", help="a version, for all that are here")
    parser.add_argument("--extra", action="append", help="an extra, instead of each; '' is none")
    asked = parser.parse_args()
    dist = ROOT / "dist"
    wheel = build(dist)
    for version in asked.python or VERSIONS:
        python = python_of(version)
        if python is None:
            print(f"Python {version}: not here, not tried")
            continue
        for extra in asked.extra or [name for name in USES if name != "all"]:
            start = time.monotonic()
            with tempfile.TemporaryDirectory() as folder:
                install(python, wheel, extra, Path(folder, "env"))
            print(f"Python {version} [{extra}]: {time.monotonic() - start:.0f} s", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        inside = install(sys.executable, wheel, "all", Path(folder, "env"))
        bill_of_materials(wheel, inside, dist)
    print("Nothing was uploaded; CONTRIBUTING.md says what comes next.")


if __name__ == "__main__":
    main()
