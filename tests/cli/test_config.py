"""``tribes config``: what it says, where, and with which exit code."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tribes.cli.app import main
from tribes.config import read_config
from tribes.config.explain import explain, keys

DATA = Path(__file__).parent.parent / "data"
STATIC = "[[channel.membership.static]]\n"
SERVER = DATA / "server.xml"
BROKEN = DATA / "seeds-xml" / "002-cluster-pasted-twice.xml"


def config(*arguments: str | Path, **environ: str) -> Result:
    found = CliRunner().invoke(main, ["config", *map(str, arguments)], env=dict(environ))
    assert found.exception is None or isinstance(found.exception, SystemExit)
    return found


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    path = tmp_path / "node.toml"
    path.write_text(
        'name = "n1"\n\n[channel]\nkeys = "geheim"\n\n[channel.receiver]\nport = 4001\n'
    )
    return path


def test_a_good_file_is_fine(toml: Path) -> None:
    """Also when everything must be honoured."""
    done = config("check", "--strict", toml)
    assert (done.exit_code, done.stdout, done.stderr) == (0, f"{toml}: fine\n", "")


def test_notices_are_told_and_strict_minds_them() -> None:
    """Each on a line, with file and line."""
    done = config("check", SERVER)
    assert done.exit_code == 0
    assert f"{SERVER}: line 12: Server/Service/Engine/Cluster channelStartOptions=" in done.stdout
    assert config("check", "--strict", SERVER).exit_code == 1
    assert config("check", "--quiet", SERVER).stdout == ""


def test_a_bad_file_is_an_error_and_the_others_are_read(toml: Path) -> None:
    """On standard error; the exit code is the worst."""
    done = config("check", "--strict", BROKEN, toml, SERVER)
    assert done.exit_code == 2
    assert f"error: {BROKEN}: line 17, column 58: " in done.stderr
    assert f"{toml}: fine" in done.stdout
    assert f"{SERVER}: fine" in done.stdout
    assert config("check", "no-such.toml").exit_code == 2
    assert config("check").exit_code == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[channel.receiver]\nport = 70000", "line 2: channel.receiver.port: must be a port"),
        ("[channel.receiver]\nprot = 1", "line 2: channel.receiver.prot: is not known; is port"),
        (
            f'{STATIC}host = "a"\n{STATIC}host = ""',
            "line 4: channel.membership.static[1].host: is empty",
        ),
        ('[[channel.interceptors]]\nclass = "Gzipp"', "did you mean 'GzipInterceptor'"),
        ('[[channel.interceptors]]\nclass = "GzipInterceptor"\nzzz = 1', "line 3: channel.interce"),
        ("<Manager maxActiveSessions='x'/>", "line 1: Manager maxActiveSessions: found 'x'"),
    ],
)
def test_errors_name_file_line_and_key(tmp_path: Path, text: str, said: str) -> None:
    """Whether the text is wrong, the key, or the value."""
    path = tmp_path / "n.conf"
    path.write_text(text)
    done = config("check", path)
    assert done.exit_code == 2
    assert said in done.stderr
    assert str(path) in done.stderr


def test_what_nothing_protects_is_told(tmp_path: Path) -> None:
    """It is no error: a key may be given when the node is started."""
    path = tmp_path / "n.toml"
    path.write_text('[channel.receiver]\naddress = "192.0.2.1"\n')
    done = config("check", path)
    assert done.exit_code == 0
    assert "before it can start: " in done.stdout
    assert "line 2: channel.receiver.address: 192.0.2.1 is not a loopback address" in done.stdout
    assert config("check", "--strict", path, TRIBES_INSECURE="true").exit_code == 0


def test_the_environment_is_checked_too(toml: Path) -> None:
    """Unless that is not wanted."""
    wrong = {"TRIBES_CHANNEL__RECEIVER__PROT": "1"}
    done = config("check", toml, **wrong)
    assert done.exit_code == 2
    assert "is TRIBES_CHANNEL__RECEIVER__PORT meant?" in done.stderr
    assert config("check", "--no-env", toml, **wrong).exit_code == 0


def test_convert_writes_toml_that_means_the_same(tmp_path: Path) -> None:
    """Notices go elsewhere, so that the output can be a file."""
    done = config("convert", SERVER)
    assert done.exit_code == 0
    assert "channelStartOptions" in done.stderr
    path = tmp_path / "node.toml"
    path.write_text(done.stdout)
    assert read_config(path).config == read_config(SERVER).config
    other = tmp_path / "other.toml"
    assert config("convert", "--to", "toml", "--output", other, SERVER).stdout == ""
    assert other.read_text() == done.stdout
    assert config("convert", "--output", other, SERVER).exit_code == 1
    if os.name == "posix":
        assert stat.S_IMODE(other.stat().st_mode) == 0o600


def test_convert_refuses_what_cannot_be_read_or_is_not_wanted() -> None:
    """And writes nothing."""
    done = config("convert", BROKEN)
    assert (done.exit_code, done.stdout) == (2, "")
    done = config("convert", "--strict", SERVER)
    assert (done.exit_code, done.stdout) == (1, "")


def test_show_tells_what_is_in_force(toml: Path) -> None:
    """File, environment and defaults; keys are hidden."""
    done = config("show", toml, TRIBES_CHANNEL__RECEIVER__AUTO_BIND="3")
    assert done.exit_code == 0
    for line in ("port = 4001", "auto_bind = 3", "frequency = 500", 'keys = "<hidden>"'):
        assert line in done.stdout
    assert "geheim" not in done.output
    assert "TRIBES_CHANNEL__RECEIVER__AUTO_BIND sets channel.receiver.auto_bind" in done.stderr
    assert "port = 4000" in config("show").stdout
    assert config("show", BROKEN).exit_code == 2


def test_explain() -> None:
    """By Tomcat's name or ours, with a class or without; else the nearest names."""
    for name in ("dropTime", "DROPTIME", "McastService.dropTime"):
        done = config("explain", name)
        assert done.exit_code == 0
        assert "Tomcat's default: 3000" in done.stdout
        assert "channel.membership.drop_time" in done.stdout
    done = config("explain", "drop_time")
    assert "TRIBES_CHANNEL__MEMBERSHIP__DROP_TIME" in done.stdout
    assert "not supported" in config("explain", "proxyURL").stdout
    done = config("explain", "Receiver.port")
    assert done.stdout.startswith("NioReceiver.port")
    assert "McastService" not in done.stdout
    done = config("explain", "drptime")
    assert done.exit_code == 2
    assert "is dropTime" in done.stderr


def test_every_key_is_explained() -> None:
    """By its path, from the model's own documentation."""
    found = list(keys())
    assert "channel.receiver.port" in [key for key, _, _ in found]
    for key, default, text in found:
        assert text, key
        assert default, key
        assert explain(key), key
