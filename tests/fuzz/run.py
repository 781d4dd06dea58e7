"""Fuzz one way into the node for some time, guided by what the bytes reach (atheris, libFuzzer).

    python tests/fuzz/run.py plain --seconds 600
    python tests/fuzz/run.py plain --replay found/crash-…

Begins with the seeds of the target, made of the byte vectors and of what our own members say, and
with ``--corpus``, where what reached something new is also kept. An input that breaks a promise is
written to ``--found``, and ends the run with status 1; ``--replay`` runs it again, with the
traceback. The last line is JSON.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(_ROOT))

HANG_S = 20
"""Seconds of the clock after which one input counts as a hang."""
MEMORY_MAX_MB = 1024
"""The whole process, with libFuzzer's own tables and corpus."""
INPUT_MAX_BYTES = 16 * 1024


def fuzz(name: str, options: list[str]) -> None:
    """Run libFuzzer in this process; does not return."""
    import atheris

    with atheris.instrument_imports(include=["tribes", "msgpack"]):
        from tests.fuzz.targets import TARGETS

    atheris.Setup([sys.argv[0], *options], TARGETS[name].run)
    atheris.Fuzz()


def write_corpus(name: str, folder: Path) -> Path:
    """Write a target's seeds into a folder, and its words beside them; return the latter's path."""
    from tests.fuzz.targets import TARGETS

    target = TARGETS[name]
    folder.mkdir(parents=True, exist_ok=True)
    for seed in target.seeds():
        (folder / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)
    words = folder.with_name(folder.name + ".dict")
    lines = ['"' + "".join(f"\\x{byte:02x}" for byte in word) + '"' for word in target.words]
    words.write_text("\n".join(lines) + "\n")
    return words


def main() -> int:
    """Run one target; see the module."""
    from tests.fuzz.targets import TARGETS

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--corpus", type=Path, help="folder to begin with and to add to")
    parser.add_argument("--found", type=Path, default=_ROOT / "fuzz-found")
    parser.add_argument("--replay", type=Path, help="run this one input")
    arguments = parser.parse_args()
    name = arguments.target
    if arguments.replay:
        TARGETS[name].run(arguments.replay.read_bytes())
        return 0
    arguments.found.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        corpus = arguments.corpus or Path(scratch) / "corpus"
        words = write_corpus(name, corpus)
        options = [
            f"-max_total_time={arguments.seconds}",
            f"-max_len={INPUT_MAX_BYTES}",
            f"-timeout={HANG_S}",
            f"-rss_limit_mb={MEMORY_MAX_MB}",
            f"-artifact_prefix={arguments.found}/{name}-",
            f"-dict={words}",
            "-print_final_stats=1",
            str(corpus),
        ]
        child = subprocess.run(
            [sys.executable, __file__, "--fuzz", name, *options],
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env={**os.environ, "PYTHONPATH": str(_ROOT)},
            check=False,
        )
        return report(name, child, len(list(corpus.iterdir())))


def report(name: str, child: subprocess.CompletedProcess[str], inputs: int) -> int:
    """Print how it ended, and return the exit status."""
    log = child.stderr
    if child.returncode:
        print(log[-6000:], file=sys.stderr)
    stats = {key: int(value) for key, value in re.findall(r"stat::(\w+):\s+(\d+)", log)}
    reached = re.findall(r"cov: (\d+) ft: (\d+)", log)
    print(
        json.dumps(
            {
                "target": name,
                "executions": stats.get("number_of_executed_units", 0),
                "slowest_s": stats.get("slowest_unit_time_sec", 0),
                "peak_mb": stats.get("peak_rss_mb", 0),
                "edges": int(reached[-1][0]) if reached else 0,
                "inputs": inputs,
                "found": bool(child.returncode),
            }
        )
    )
    return 1 if child.returncode else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--fuzz"]:
        fuzz(sys.argv[2], sys.argv[3:])
    sys.exit(main())
