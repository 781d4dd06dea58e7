from __future__ import annotations

import copy
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tribes.testing.vector_checks import NotBuilt, Vector, check, load_checks
from tribes.testing.vector_checks.notation import expect_bytes, rule_bytes
from tribes.testing.vectors import (
    DEFAULT_FILE,
    VectorsFileError,
    load_vectors,
    main,
    run_vectors,
)

if TYPE_CHECKING:
    from pathlib import Path

CHECKS = load_checks()
VECTORS = {vector["name"]: vector for vector in load_vectors(DEFAULT_FILE)}


def write(path: Path, vectors: list[Vector]) -> Path:
    path.write_text(json.dumps({"format": 1, "vectors": vectors}))
    return path


def passes(vector: Vector) -> bool:
    report = run_vectors([vector], CHECKS)
    assert not report.skipped
    return not report.failed


def changed(name: str, *path: str | int, to: Any) -> Vector:
    """Return the vector of this name with the value at ``path`` replaced."""
    vector = copy.deepcopy(VECTORS[name])
    place: Any = vector
    for key in path[:-1]:
        place = place[key]
    assert place[path[-1]] != to
    place[path[-1]] = to
    return vector


def test_every_vector_of_the_projects_copy_passes() -> None:
    """None is skipped either: a part that is not built any more would be noticed."""
    report = run_vectors(VECTORS.values(), CHECKS)
    assert (report.failed, report.skipped) == ([], [])
    assert len(report.passed) == len(VECTORS)
    assert {vector["group"] for vector in VECTORS.values()} == set(CHECKS)


@pytest.mark.parametrize("group", ["later", "control"])
def test_a_skipped_vector_changes_the_status(
    group: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """CI runs the vectors by their exit status; what was not run has not passed."""
    new = {"name": "nobody-knows", "group": group, "inputs": {}}
    file = write(tmp_path / "vectors.json", [VECTORS["ack"], new])
    assert main([str(file)]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "1 passed, 0 failed, 1 skipped"


def test_the_module_runs_as_a_program() -> None:
    """Without arguments it runs the project's copy; the last line is the summary."""
    command = [sys.executable, "-m", "tribes.testing.vectors"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    report = run_vectors(VECTORS.values(), CHECKS)
    assert done.stdout.splitlines()[-1] == report.summary
    assert f"{len(report.passed)} passed, 0 failed, " in report.summary


@pytest.mark.parametrize(
    "vector",
    [
        changed("member-domain", "inputs", "alive", to=78),
        changed("member-domain", "length", to=90),
        changed("member-domain", "decoded_name", to="tcp://{127, 0, 0, 2}:4000"),
        changed("member-domain", "inputs", "host_text", to="127.0.0.2"),
        changed("member-domain", "inputs", "unique_id_hex", to="00" * 15),
        changed("member-decode-trailing-bytes", "member", "payload_hex", to="706178"),
        changed("member-decode-trailing-bytes", "accepted", to=False),
        changed("member-reject-end-marker", "accepted", to=True),
        changed("member-absolute-order", "sorted_indexes", to=[0, 1, 2, 3, 4, 5, 6]),
        changed("member-alive-order", "listing_indexes", to=[3, 1, 4, 2, 0]),
        changed("frame-byte-1", "inputs", "message", "hex", to="01"),
        changed("frame-byte-1", "inputs", "member", "port", to=1),
        changed("frame-64k", "sha256", to="00" * 32),
        changed("frame-64k", "head_hex", to="00" * 256),
        changed("frame-64k", "tail_hex", to="00" * 32),
        changed("live-frame-byte", "inputs", "message_kind", to="String"),
        changed("raw-frame-empty", "inputs", "body_hex", to="00"),
        changed("ack", "inputs", "body_hex", to="060204"),
        changed("stream-ack-split", "after_each_chunk", 0, "left_in_buffer", to=0),
        changed("stream-ack-split", "after_each_chunk", 1, "frame_bodies_hex", to=[]),
        changed("multicast-heartbeat", "inputs", "domain_hex", to=""),
        changed("multicast-broadcast", "inputs", "options", to=64),
        changed("send-options-[8]", "value", to=9),
        changed("send-options-names-8", "names", to="asynchronous"),
        changed("send-options-[ASYNC]", "inputs", "text", to="async"),
        changed("byte-array-[{1,2,3}]", "hex", to="010204"),
        changed("byte-array-[x]", "inputs", "text", to="{1}"),
        changed("tcp-failure-detect", "inputs", "options", to=2),
        changed("tcp-ping", "message_hex", to="00"),
        changed("static-member-stop", "inputs", "options", to=1),
        changed("two-phase-confirm", "inputs", "timestamp", to=1),
        changed("order-send-two-destinations", "wire", 1, "hex", to="00"),
        changed("order-rx-gap", "after_each_arrival", 3, "delivered_hex", to=["64"]),
        changed("order-rx-member-gone", "inputs", "arrivals", 0, "hex", to="6300000004"),
        changed("fragment-one-over", "wire_messages", 1, "hex", to="00"),
        changed("defragment-duplicate", "delivered_after_each_hex", 3, to=[]),
        changed("gzip-hello", "hex", to="00"),
        changed("gunzip-not-gzip", "delivered", to=True),
        changed("gzip-message", "options_on_wire", to=1),
        changed("stack-order-fragment", "wire_messages", 0, "options", to=2),
        changed("stack-gzip-fragment", "inputs", "message", "hex", to="00"),
        changed("encrypt-gcm-128", "inputs", "timestamp", to=1700000000124),
        changed("encrypt-replay-duplicate", "accepted", to=[True, True]),
        changed("encrypt-reject-bit-flip", "delivered", to=True),
        changed("encrypt-algorithm-AES", "result", to="ok"),
        changed("two-phase-receive", "steps", 2, "delivered_hex", to=[]),
        changed("coordinator-confirm", "inputs", "id_hex", to="00" * 16),
        changed("domain-different", "member_added", to=True),
        changed("serial-unique-id", "inputs", "hex", to="00" * 16),
        changed("serial-member", "inputs", "member", "alive", to=1),
        changed("receiver-udp-options-39", "reply_hex", to=""),
        changed("receiver-udp-options-33", "reply_hex", to="464c5432"),
        changed("map-backup", "inputs", "key", to="String k2"),
        changed("map-backup", "inputs", "nodes", 0, "alive", to=1),
        changed("map-backup", "inputs", "type_name", to="MSG_PROXY"),
        changed("map-backup-diff", "inputs", "diff", to=False),
        changed("map-remove", "inputs", "map_id", to="YourMap"),
        changed("map-ping-reply-initialized", "inputs", "value", to="State NEW"),
        changed("static-service-start", "inputs", "type", to=2),
        changed("static-service-stop", "inputs", "membership_id", to="other"),
        {"name": "no inputs", "group": "frame"},
        {"name": "no outputs", "group": "raw_frame", "inputs": {"body_hex": ""}},
    ],
    ids=lambda vector: vector["name"],
)
def test_a_corrupted_vector_fails(vector: Vector) -> None:
    """One wrong value anywhere is found, and a check that crashes is a failure."""
    assert not passes(vector)


@pytest.mark.parametrize(
    ("chunks", "after"),
    [
        pytest.param(["46", "585858"], [([], 1), ([], 4)], id="junk after a good byte"),
        pytest.param(["464c54323030327fffffff"], [([], 11)], id="length above our maximum"),
        pytest.param(["464c5432303032ffffffff"], [([], 11)], id="negative length"),
        pytest.param(["464c543230303200000000" + "00" * 7], [([], 18)], id="end marker"),
    ],
)
def test_streams_may_close_where_they_break_the_format(
    chunks: list[str], after: list[tuple[list[str], int]]
) -> None:
    """What Tomcat does after a framing error is not asked of us."""
    vector = {
        "name": "stream",
        "group": "stream_behaviour",
        "inputs": {"chunks_hex": chunks},
        "after_each_chunk": [
            {"frame_bodies_hex": bodies, "left_in_buffer": left} for bodies, left in after
        ],
    }
    assert passes(vector)


def test_large_bytes_are_given_by_a_rule() -> None:
    """The rule and the short form of outputs are those of Appendix D."""
    data = rule_bytes(1000)
    assert data[:3].hex() == "59dc5f"
    assert data[999] == (999 * 131 + 3 * 17 + 89) % 256
    assert passes({**VECTORS["raw-frame-300"], "inputs": {"body": {"n": 300}}})
    with pytest.raises(AssertionError, match="outputs of the vector"):
        expect_bytes({"name": "empty"}, data)


def test_failures_are_printed_and_change_the_status(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A failed vector is named with what was expected; unknown groups are listed with counts."""
    unknown = {"name": "later", "group": "not_known", "inputs": {}}
    bad = changed("member-domain", "inputs", "alive", to=78)
    new = {"name": "nobody-knows", "group": "control", "inputs": {}}
    file = write(tmp_path / "vectors.json", [VECTORS["ack"], bad, unknown, unknown, new])
    assert main([str(file)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "FAILED member: member-domain"
    assert lines[1] == "    bytes: differs from character 44 on"
    shown = VECTORS["member-domain"]["hex"][18:118]
    assert lines[2] == f"    expected ...{shown}..."
    assert lines[3] == f"    got      ...{shown.replace('4d00000fa0', '4e00000fa0')}..."
    assert "    not_known 2" in lines
    assert "    control: nobody-knows (nobody-knows)" in lines
    assert lines[-1] == "1 passed, 1 failed, 3 skipped"


def test_verbose_shows_whole_values(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With --verbose nothing is shortened, passed vectors are named, errors have tracebacks."""
    bad = changed("member-domain", "inputs", "alive", to=78)
    crash = {"name": "no inputs", "group": "frame"}
    file = write(tmp_path / "vectors.json", [VECTORS["ack"], bad, crash])
    assert main([str(file), "--verbose"]) == 1
    output = capsys.readouterr().out
    assert "passed ack: ack" in output
    assert VECTORS["member-domain"]["hex"] in output
    assert "Traceback" in output


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"{", "is not JSON"),
        (b"\xff\xfe\x00", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[]", "holds a JSON list"),
        (b"{}", "has no list 'vectors'"),
        (b'{"vectors": {}}', "has no list 'vectors'"),
        (b'{"format": 2, "vectors": []}', "has format 2"),
        (b'{"vectors": [3]}', "vectors[0] is a int"),
        (b'{"vectors": [{"name": "a"}]}', "vectors[0] has no text 'group'"),
        (b'{"vectors": [{"name": "a", "group": "ack"}, {"name": 1}]}', "vectors[1] has no text"),
    ],
)
def test_a_malformed_file_is_named(
    content: bytes, problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The status is 2, and the message says which file and what is wrong with it."""
    file = tmp_path / "broken.json"
    file.write_bytes(content)
    assert main([str(file)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"error: {file}: ")
    assert problem in captured.err


def test_a_missing_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that cannot be read is status 2, too."""
    assert main([str(tmp_path / "none.json")]) == 2
    assert "none.json: cannot be read: No such file" in capsys.readouterr().err
    with pytest.raises(VectorsFileError, match="cannot be read"):
        load_vectors(tmp_path)


def test_a_group_has_one_check() -> None:
    """A second check for the same group is an error, so that none is lost."""
    with pytest.raises(ValueError, match="'frame' has a check already"):
        check("frame")(lambda _: None)


def test_checks_can_decline() -> None:
    """A vector whose part is not built is skipped and says which part it needs."""

    def decline(_: Vector) -> None:
        raise NotBuilt("time travel")

    report = run_vectors([{"name": "a", "group": "later"}], {"later": decline})
    assert report.summary == "0 passed, 0 failed, 1 skipped"
    assert str(report.skipped[0].why) == "time travel"
