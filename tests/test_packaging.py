"""What a user installs is complete: built, compared, installed and imported.

The links tribes/manager and tribes/interceptors are the risk. A build that does not follow them
leaves packages out without an error.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.release.extras import TOOLS, extras

ROOT = Path(__file__).parents[1]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command that must succeed, and return what it printed."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def package_files(root: Path) -> set[str]:
    """Name every file of the package below ``root``, links followed."""
    return {
        Path(folder, file).relative_to(root).as_posix()
        for folder, _, files in os.walk(root / "tribes", followlinks=True)
        for file in files
        if Path(folder).name != "__pycache__"
    }


def build(kind: str, source: Path, out: Path) -> Path:
    """Build without the network: the build backend is one of our development tools."""
    run(sys.executable, "-m", "build", "--no-isolation", f"--{kind}", "-o", out, source, cwd=out)
    (built,) = out.iterdir()
    return built


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("sdist", ROOT, tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def unpacked(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        # Not `extractall(filter=…)`: Debian 12 has Python 3.11.2, and that came with 3.11.4.
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        archive.extractall(folder)
    (top,) = folder.iterdir()
    return top


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make an environment that holds the wheel, and borrows the libraries of this one.

    Only a ``.pth`` file of the new environment is read, so an editable install in the old one, and
    with it this checkout, stays invisible.
    """
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    run(
        *(sys.executable, "-m", "pip", "--python", python, "install"),
        *("--quiet", "--disable-pip-version-check", "--no-deps", "--no-index", wheel),
        cwd=folder,
    )
    purelib = run(
        python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder
    )
    borrowed = dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
    Path(purelib.strip(), "borrowed.pth").write_text("\n".join(borrowed), encoding="utf-8")
    return folder


def test_the_wheel_holds_every_file_of_the_package(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert len(names) == len(set(names))
    assert {name for name in names if name.startswith("tribes/")} == package_files(ROOT)
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"tribes"}
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_the_sdist_holds_every_file_of_the_repository(unpacked: Path) -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not here: this is no git checkout")
    tracked = run("git", "ls-files", "-z", cwd=ROOT).split("\0")
    files = {name for name in tracked if (ROOT / name).is_file()}
    missing = {name for name in files if not (unpacked / name).is_file()}
    assert missing == set()
    assert package_files(unpacked) == package_files(ROOT)


def test_the_wheel_is_the_same_when_built_from_the_sdist(
    unpacked: Path, wheel: Path, tmp_path: Path
) -> None:
    def digests(path: Path) -> dict[str, str]:
        with zipfile.ZipFile(path) as archive:
            return {
                name: hashlib.sha256(archive.read(name)).hexdigest() for name in archive.namelist()
            }

    assert digests(build("wheel", unpacked, tmp_path)) == digests(wheel)


IMPORT_ALL = """
import importlib, json, pkgutil, sys

import tribes

names = [found.name for found in pkgutil.walk_packages(tribes.__path__, "tribes.")]
for name in names:
    if not name.endswith(".__main__"):
        importlib.import_module(name)
files = [module.__file__ for name, module in sys.modules.items() if name.startswith("tribes")]
print(json.dumps({"names": names, "files": files}))
"""


def test_the_installed_package_imports_completely(installed: Path, tmp_path: Path) -> None:
    out = run(installed / "bin" / "python", "-W", "error", "-c", IMPORT_ALL, cwd=tmp_path)
    seen = json.loads(out)
    modules = {
        file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for file in package_files(ROOT)
        if file.endswith(".py")
    }
    assert set(seen["names"]) == modules - {"tribes"}
    assert all(Path(file).is_relative_to(installed) for file in seen["files"])


def test_the_command_is_installed(installed: Path, tmp_path: Path) -> None:
    assert "Usage: tribes" in run(installed / "bin" / "tribes", "--help", cwd=tmp_path)


WITHOUT_EXTRAS = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name in ABSENT:
            raise ModuleNotFoundError(f"{name} belongs to an extra", name=name)

ABSENT = set(sys.argv.pop().split(","))
sys.meta_path.insert(0, Absent())

import tribes
import tribes.cli.app
"""


def modules_of_extras() -> set[str]:
    """Name what can be imported of the libraries of every extra; this environment has them all."""
    wanted = {
        canonicalize_name(Requirement(line).name)
        for extra, lines in extras().items()
        if extra not in TOOLS
        for line in lines
    } - {"tribes"}
    known = packages_distributions()
    found = {name for name in known if wanted & set(map(canonicalize_name, known[name]))}
    assert wanted == {canonicalize_name(of) for name in found for of in known[name]} & wanted
    return found


def test_the_package_and_its_command_need_no_extra(installed: Path, tmp_path: Path) -> None:
    absent = modules_of_extras()
    assert {"django", "psycopg", "pymysql", "rich", "sqlalchemy", "starlette"} <= absent
    run(installed / "bin" / "python", "-c", WITHOUT_EXTRAS, ",".join(absent), cwd=tmp_path)


def test_a_users_project_passes_strict_mypy_against_the_installed_package(
    installed: Path, tmp_path: Path
) -> None:
    """The package says that it is typed, and what it offers has the types that are shown."""
    program = tmp_path / "project" / "user_code.py"
    program.parent.mkdir()
    program.write_text((ROOT / "tests" / "typing" / "user_code.py").read_text())
    out = run(
        *(sys.executable, "-m", "mypy", "--strict", "--config-file", os.devnull),
        *("--cache-dir", tmp_path / "cache", "--python-executable"),
        *(installed / "bin" / "python", program),
        cwd=program.parent,
    )
    assert "Success: no issues found in 1 source file" in out
