"""What the figures were taken on: without it they mean nothing."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

LIBRARIES = ("trio", "msgpack", "cryptography", "redis", "pymemcache", "pysyncobj", "Flask-Session")


def described() -> dict[str, Any]:
    """Processor, versions, the revision, and what else ran (load average of the last minute)."""
    return {
        "when": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "load": round(os.getloadavg()[0], 2),
        **_fixed(),
    }


@cache
def _fixed() -> dict[str, Any]:
    return {
        "revision": _said("git", "rev-parse", "--short=10", "HEAD"),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "libraries": {name: found for name in LIBRARIES if (found := _version(name))},
        "java": _said("java", "-version").partition("\n")[0],
        "redis": _said("redis-server", "--version")[:24],
        "memcached": _said("memcached", "--version"),
        "tomcat": _tomcat(),
    }


def _said(program: str, *arguments: str) -> str:
    path = shutil.which(program)
    if path is None:
        return ""
    found = subprocess.run(
        [path, *arguments],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
        cwd=Path(__file__).parent,
    )
    return (found.stdout or found.stderr).strip()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _processor() -> str:
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def _tomcat() -> str:
    jar = Path("/usr/share/java/tomcat10-tribes.jar")
    return jar.resolve().stem.rpartition("-")[2] if jar.exists() else ""
