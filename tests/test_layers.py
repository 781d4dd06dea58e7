"""The tree is one package: its imports point downwards, and no module exists twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[1]


def module_names() -> list[str]:
    """Name every module of the package, through the links, from the files alone."""
    names = []
    for folder, _, files in os.walk(ROOT / "tribes", followlinks=True):
        package = Path(folder).relative_to(ROOT).parts
        for file in files:
            if file == "__init__.py":
                names.append(".".join(package))
            elif file.endswith(".py"):
                names.append(".".join((*package, file.removesuffix(".py"))))
    return sorted(names)


IMPORT_EACH = """
import importlib, json, sys

failures = {}
for name in json.load(sys.stdin):
    # Forget our modules, not the libraries: each module must work when it is the first one that a
    # program imports, and this way that costs milliseconds.
    for loaded in [module for module in sys.modules if module.partition(".")[0] == "tribes"]:
        del sys.modules[loaded]
    try:
        importlib.import_module(name)
    except BaseException as error:
        failures[name] = f"{type(error).__name__}: {error}"
twice = sorted({module.partition(".")[0] for module in sys.modules} & {"manager", "interceptors"})
print(json.dumps({"failures": failures, "twice": twice}))
"""


PARTS = 6
"""Each import runs most of the package, so this is divided among the machine's cores."""


@pytest.mark.timeout(120)
@pytest.mark.parametrize("part", range(PARTS))
def test_every_module_imports_first_and_without_a_warning(part: int) -> None:
    """None leans on another one having been imported before it."""
    names = [name for name in module_names() if not name.endswith(".__main__")][part::PARTS]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", IMPORT_EACH],
        cwd=ROOT,
        input=json.dumps(names),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    *printed, last = done.stdout.splitlines()
    result = json.loads(last)
    assert not result["failures"], "\n".join(
        f"{name}: {why}" for name, why in result["failures"].items()
    )
    assert result["twice"] == []
    assert printed == []
    assert done.stderr == ""


def test_import_linter_sees_the_linked_packages() -> None:
    """Contracts about modules that the linter cannot see would hold whatever those import."""
    seen = grimp.build_graph("tribes", cache_dir=None).modules
    assert seen == set(module_names())
    assert {"tribes.manager", "tribes.interceptors"} <= seen


def test_contracts_are_kept() -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from importlinter.cli import lint_imports_command; lint_imports_command()",
            "--no-logo",
            "--no-cache",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
