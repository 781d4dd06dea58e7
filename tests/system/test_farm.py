"""Three ``tribes node`` with a farm, as processes: real files, real kills, real commands."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tests.farm.contents import noise, zip_of
from tests.ports import free_tcp_port, free_udp_port
from tests.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

TOKEN = "operators-token-of-the-test"
WITHIN_S = 40.0
_JSON = ("--log-format", "json")


class Member:
    """A node process with a farm, and its directories, which survive it."""

    def __init__(
        self, directory: Path, name: str, multicast_port: int, more: str, channel: str = ""
    ) -> None:
        self.name, self.at = name, directory / name
        self.watch, self.deploy, self.temp = (self.at / n for n in ("watch", "deploy", "temp"))
        self.watch.mkdir(parents=True)
        self.port = free_tcp_port()
        token = directory / "token"
        if not token.exists():
            token.touch(mode=0o600)
            token.write_text(TOKEN)
        enabled = "" if channel else "enabled = true\n"
        self.file = self.at / "node.toml"
        self.file.write_text(
            f'name = "{name}"\n{channel}[channel.membership]\nport = {multicast_port}\n'
            f'[channel.receiver]\nport = 0\n[http]\nport = {self.port}\ntoken_file = "{token}"\n'
            f'[farm]\n{enabled}deployDir = "{self.deploy}"\ntempDir = "{self.temp}"\n'
            f'watchDir = "{self.watch}"\nsettle_s = 0.2\ntick_s = 0.5\n{more}'
        )
        self.token = token
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        with (self.at / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tribes", "node", "--config", str(self.file), *_JSON],
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def pause(self) -> None:
        """Stop it where it is; returns when it stands still."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)
        os.waitpid(self.process.pid, os.WUNTRACED)

    def lacks_pieces(self) -> bool:
        """Whether a transfer is under way: behind its header a map has a byte for each piece."""
        return any(0 in path.read_bytes()[16:] for path in self.temp.glob("*.map"))

    def events(self, event: str) -> list[dict[str, Any]]:
        """Lines of the log under a name, of all its processes."""
        lines = (self.at / "log").read_text().splitlines()
        said = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]
        return [each for each in said if each["event"] == event]

    def status(self) -> dict[str, Any]:
        """What ``/farm`` says; empty while it does not answer."""
        url = f"http://127.0.0.1:{self.port}/farm"
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {TOKEN}"})
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                found: dict[str, Any] = json.load(answer)
                return found
        except OSError:
            return {}

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run ``tribes`` against this node."""
        url = f"http://127.0.0.1:{self.port}"
        more = ["--url", url, "--token-file", str(self.token)]
        return subprocess.run(
            [sys.executable, "-m", "tribes", *words, *more],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def content(self, path: str) -> bytes | None:
        """What stands in the deploy directory."""
        try:
            return (self.deploy / path).read_bytes()
        except OSError:
            return None


@pytest.fixture
def join(tmp_path: Path) -> Iterator[Callable[..., Member]]:
    """Starts members of one farm."""
    port, members = free_udp_port(), []

    def begin(name: str, more: str = "", channel: str = "") -> Member:
        members.append(Member(tmp_path, name, port, more, channel))
        return members[-1]

    yield begin
    for member in members:
        member.kill()


@pytest.fixture
def three(join: Callable[..., Member]) -> list[Member]:
    """The first one watches; all see each other."""
    members = [join("a", "watchEnabled = true\n"), join("b"), join("c")]
    wait_until(
        lambda: all(len(m.status().get("members", ())) == 3 for m in members),
        WITHIN_S,
        what="they meet",
    )
    return members


def put(member: Member, name: str, content: bytes) -> None:
    """Copy an archive into the watch directory, as ``cp`` does."""
    (member.watch / name).write_bytes(content)


def all_have(members: list[Member], path: str, content: bytes | None) -> Callable[[], bool]:
    return lambda: all(member.content(path) == content for member in members)


@pytest.mark.timeout(180)
@pytest.mark.slow
def test_t112_the_watch_directory_deploys_redeploys_and_undeploys(three: list[Member]) -> None:
    """Put in: deployed on all. Changed: the new version. Removed: gone from all."""
    put(three[0], "shop.war", zip_of({"index.txt": b"one"}))
    wait_until(all_have(three, "shop/index.txt", b"one"), WITHIN_S, what="deployed")
    put(three[0], "shop.war", zip_of({"index.txt": b"two", "more/x": noise(300_000)}))
    wait_until(all_have(three, "shop/index.txt", b"two"), WITHIN_S, what="redeployed")
    assert all_have(three, "shop/more/x", noise(300_000))()
    (three[0].watch / "shop.war").unlink()
    wait_until(all_have(three, "shop/index.txt", None), WITHIN_S, what="undeployed")
    names = {path.name for member in three for path in member.deploy.iterdir()}
    assert names == {".farm"}


@pytest.mark.timeout(180)
@pytest.mark.slow
def test_t113_a_late_joiner_pulls_and_a_killed_member_goes_on(
    three: list[Member], join: Callable[..., Member]
) -> None:
    """Killed in the middle of a transfer, a member has all or nothing of it, and afterwards all;
    one that joins later has it too.
    """
    content = noise(12_000_000, 5)
    victim = three[2]
    put(three[0], "big.zip", zip_of({"noise": content}))
    wait_until(lambda: list(victim.temp.glob("*.map")), WITHIN_S, what="pieces come")
    # Looked at while it stands still: on a busy machine the transfer may have come to its end.
    victim.pause()
    is_lacking = victim.lacks_pieces()
    victim.kill()
    assert victim.content("big/noise") in ((None,) if is_lacking else (None, content))
    victim.start()
    wait_until(all_have(three, "big/noise", content), WITHIN_S, what="all have it")
    wait_until(lambda: not list(victim.temp.iterdir()), WITHIN_S, what="no pieces are left")
    late = join("late")
    wait_until(all_have([late], "big/noise", content), WITHIN_S, what="the late one has it")
    assert late.status()["statistics"]["fetched_bytes"] > len(content)


@pytest.mark.timeout(180)
@pytest.mark.slow
def test_t113_hostile_archives_are_refused_by_name(three: list[Member]) -> None:
    """Nothing of them is in place anywhere, and the log says what was wrong."""
    watcher = three[0]
    put(watcher, "slip.zip", zip_of({"../../evil": b"x"}))
    put(watcher, "bomb.zip", zip_of({"zeros": bytes(200_000_000)}))
    put(watcher, "no.zip", b"")
    put(watcher, "con.zip", zip_of({"a": b"x"}))
    os.symlink("/etc/passwd", watcher.watch / "link.zip")
    names = {"slip.zip", "bomb.zip", "no.zip", "con.zip", "link.zip"}
    told: dict[str, str] = {}

    def are_told() -> bool:
        told.update({e["archive"]: e["why"] for e in watcher.events("archive refused")})
        return set(told) == names

    wait_until(are_told, WITHIN_S, what=f"only {told} were told")
    assert "leads out" in told["slip.zip"]
    assert "ratio_max" in told["bomb.zip"]
    assert "no zip file" in told["no.zip"]
    assert "no safe name" in told["con.zip"]
    assert "links are not followed" in told["link.zip"]
    for member in three:
        assert [path.name for path in member.deploy.iterdir()] == [".farm"]
        assert not list((member.deploy / ".farm" / "store").iterdir())
    assert not (watcher.at / "evil").exists()


@pytest.mark.timeout(180)
@pytest.mark.slow
def test_operators_deploy_undeploy_and_list(three: list[Member], tmp_path: Path) -> None:
    """From any member's port, with exit codes that programs can use."""
    file = tmp_path / "tool.pyz"
    file.write_bytes(zip_of({"__main__.py": b"print(1)"}, size=400_000))
    done = three[1].command("deploy", str(file))
    assert (done.returncode, done.stderr) == (0, "")
    assert "tool is in place on b, " in done.stdout
    assert all_have(three, "tool.pyz", file.read_bytes())()
    listed = json.loads(three[2].command("farm", "--json").stdout)
    [shown] = listed["applications"]
    assert shown["deployed"]["file"] == "tool.pyz"
    standings = {each["member"]: each["standing"] for each in shown["deployed"]["members"]}
    assert standings == dict.fromkeys("abc", "deployed")
    assert "in place" in three[0].command("farm").stdout
    # One member has something else under that name: nobody gets it.
    (three[2].deploy / "shop").mkdir()
    other = tmp_path / "shop.zip"
    other.write_bytes(zip_of({"a": b"x"}))
    done = three[1].command("deploy", str(other))
    assert done.returncode == 3
    assert "c: " in done.stderr
    assert "take it away" in done.stderr
    assert not any((member.deploy / "shop").is_symlink() for member in three)
    assert three[1].command("undeploy", "tool").returncode == 0
    assert all_have(three, "tool.pyz", None)()
    assert three[1].command("undeploy", "tool").returncode == 4
    other.write_bytes(b"PK")
    assert three[1].command("deploy", str(other)).returncode == 1


@pytest.mark.timeout(120)
@pytest.mark.slow
def test_a_hook_runs_after_each_deployment(join: Callable[..., Member], tmp_path: Path) -> None:
    """With what happened in its environment, and none of the node's own secrets; what it says and
    how it ends is in the log. Its failure undoes nothing.
    """
    script = tmp_path / "hook.py"
    script.write_text(
        "import json, os, sys\nprint(json.dumps(dict(os.environ)))\n"
        "sys.exit(3 if os.environ['TRIBES_FARM_EVENT'] == 'undeployed' else 0)\n"
    )
    hook = json.dumps([sys.executable, str(script), "$(not a shell)"])
    os.environ["TRIBES_CHANNEL__RECEIVER__PORT"] = "0"  # a setting of the node's own
    try:
        member = join("a", f"watchEnabled = true\nhook = {hook}\n")
    finally:
        del os.environ["TRIBES_CHANNEL__RECEIVER__PORT"]
    put(member, "shop.zip", zip_of({"a": b"x"}))
    wait_until(lambda: member.events("hook done"), WITHIN_S, what="the hook ran")
    said = json.loads(member.events("hook done")[0]["output"])
    assert said["TRIBES_FARM_EVENT"] == "deployed"
    assert said["TRIBES_FARM_APP"] == "shop"
    assert said["TRIBES_FARM_PATH"] == str(member.deploy / "shop")
    assert "TRIBES_CHANNEL__RECEIVER__PORT" not in said
    (member.watch / "shop.zip").unlink()
    wait_until(lambda: member.events("hook failed"), WITHIN_S, what="the hook failed")
    assert "status 3" in member.events("hook failed")[0]["why"]
    assert member.status()["statistics"]["hooks_failed"] == 1


@pytest.mark.timeout(120)
@pytest.mark.slow
def test_in_a_group_with_a_key_the_farm_is_on(join: Callable[..., Member], tmp_path: Path) -> None:
    """Without another word, and for those who have the key."""
    keys = tmp_path / "group.key"
    keygen = [sys.executable, "-m", "tribes", "keygen", "--output", str(keys)]
    subprocess.run(keygen, check=True, timeout=30, capture_output=True)
    channel = f'[channel]\nkey_file = "{keys}"\nplain_peers = ["any"]\n'
    members = [join("a", "watchEnabled = true\n", channel), join("b", "", channel)]
    wait_until(
        lambda: all(len(m.status().get("members", ())) == 2 for m in members),
        WITHIN_S,
        what="they meet",
    )
    put(members[0], "shop.zip", zip_of({"index.txt": b"one"}))
    wait_until(all_have(members, "shop/index.txt", b"one"), WITHIN_S, what="deployed")


@pytest.mark.timeout(60)
def test_an_unprotected_group_has_no_farm_unless_somebody_says_so(tmp_path: Path) -> None:
    """The node starts without it, and says why and what to write."""
    file = tmp_path / "n.toml"
    text = f'[farm]\ndeploy_dir = "{tmp_path}/d"\ntemp_dir = "{tmp_path}/t"\n'
    file.write_text(f"[channel.receiver]\nport = 0\n{text}")
    command = [sys.executable, "-m", "tribes", "node", "--config", str(file)]
    with subprocess.Popen(
        [*command, "--no-multicast", "--log-format", "json"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if "farm is off" in line:
                    break
            assert "enabled = true" in line
        finally:
            process.terminate()
    assert not (tmp_path / "d").exists()


@pytest.mark.timeout(60)
def test_directories_that_cannot_be_used_end_the_start(tmp_path: Path) -> None:
    """With the path and the reason, and no traceback."""
    (tmp_path / "d").write_text("a file")
    file = tmp_path / "n.toml"
    text = f'[farm]\nenabled = true\ndeploy_dir = "{tmp_path}/d"\ntemp_dir = "{tmp_path}/t"\n'
    file.write_text(f"[channel.receiver]\nport = 0\n{text}")
    command = [sys.executable, "-m", "tribes", "node", "--config", str(file), "--no-multicast"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 1
    assert f"{tmp_path}/d" in done.stderr
    assert "Traceback" not in done.stderr
