"""Java programs of ours beside Tomcat's classes: where the jars are, and how to compile and run."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["compile_beside", "missing_jars"]

JARS = Path("/usr/share/java")
"""Where Debian's libtomcat10-java puts its jars."""

_NAMES = (
    *("tribes", "juli", "catalina", "catalina-ha", "coyote", "util", "util-scan", "api"),
    *("servlet-api", "annotations-api", "jni", "jaspic-api", "el-api", "jsp-api", "jasper"),
)


def _jars() -> list[Path]:
    return [JARS / f"tomcat10-{name}.jar" for name in _NAMES]


def missing_jars() -> list[str]:
    """Those that are not installed."""
    return [str(jar) for jar in _jars() if not jar.exists()]


def compile_beside(
    sources: Path, target: Path, javac: str, java: str, options: Sequence[str] = ()
) -> list[str]:
    """Compile a folder's programs; return the command that runs one, but for its name."""
    path = ":".join(map(str, [*_jars(), target]))
    files = sorted(map(str, sources.glob("*.java")))
    subprocess.run([javac, "-cp", path, "-d", str(target), *files], check=True)
    return [java, "-Djava.net.preferIPv4Stack=true", "-XX:+UseSerialGC", *options, "-cp", path]
