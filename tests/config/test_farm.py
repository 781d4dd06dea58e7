"""The deployer's settings, as Tomcat writes them and as we do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from tribes.config import read_config_bytes
from tribes.config.farm import FarmConfig, check_farm
from tribes.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

CLASS = "org.apache.catalina.ha.deploy.FarmWarDeployer"
DIRECTORIES = {"deploy_dir": "/d", "temp_dir": "/t"}


def test_t112_tomcats_attributes_are_taken_as_they_stand() -> None:
    """In XML, with the engine's tick, and by the same names in TOML."""
    xml = (
        '<Server><Service><Engine backgroundProcessorDelay="5"><Host name="h"><Cluster>'
        f'<Deployer className="{CLASS}" tempDir="/tmp/t/" deployDir="/tmp/d/" watchDir="/tmp/w/"'
        ' watchEnabled="true" processDeployFrequency="3" maxValidTime="-1"/>'
        "</Cluster></Host></Engine></Service></Server>"
    )
    farm = read_config_bytes(xml.encode(), source="server.xml").config.farm
    assert farm is not None
    assert (farm.temp_dir, farm.deploy_dir, farm.watch_dir) == ("/tmp/t/", "/tmp/d/", "/tmp/w/")
    assert (farm.watch_enabled, farm.max_valid_time_s, farm.scan_interval_s) == (True, -1, 15)
    toml = (
        f'[farm]\nclassName = "{CLASS}"\ntempDir = "/tmp/t/"\ndeployDir = "/tmp/d/"\n'
        'watchDir = "/tmp/w/"\nwatchEnabled = true\nprocessDeployFrequency = 3\n'
        "maxValidTime = -1\ntick_s = 5\n"
    )
    same = read_config_bytes(toml.encode(), source="n.toml").config.farm
    assert same is not None
    check_farm(same)
    assert same == FarmConfig(
        class_name=CLASS,
        temp_dir="/tmp/t/",
        deploy_dir="/tmp/d/",
        watch_dir="/tmp/w/",
        watch_enabled=True,
        process_deploy_frequency=3,
        tick_s=5,
        max_valid_time_s=-1,
    )


def test_the_deployer_is_told_of() -> None:
    """When it is on is not Tomcat's rule, so the check says it."""
    xml = f'<Cluster><Deployer className="{CLASS}" tempDir="/t" deployDir="/d"/></Cluster>'
    loaded = read_config_bytes(xml.encode(), source="c.xml")
    [told] = [str(each) for each in loaded.notices if "Deployer" in str(each)]
    assert "farm.enabled = true" in told


def test_it_is_on_in_protected_groups() -> None:
    """And elsewhere when somebody says so; and off when somebody says that."""
    farm = FarmConfig()
    assert farm.is_on(is_protected=True)
    assert not farm.is_on(is_protected=False)
    assert FarmConfig(enabled=True).is_on(is_protected=False)
    assert not FarmConfig(enabled=False).is_on(is_protected=True)


@pytest.mark.parametrize(
    ("changes", "key", "text"),
    [
        ({"deploy_dir": ""}, "farm.deploy_dir", "is missing"),
        ({"temp_dir": ""}, "farm.temp_dir", "is missing"),
        ({"watch_enabled": True}, "farm.watch_dir", "is missing"),
        ({"temp_dir": "/d"}, "farm.temp_dir", "directory of its own"),
        ({"watch_dir": "/d/w"}, "farm.watch_dir", "lies in farm.deploy_dir"),
        ({"watch_dir": "/x/../t/./w"}, "farm.watch_dir", "lies in farm.temp_dir"),
        ({"process_deploy_frequency": 0}, "farm.process_deploy_frequency", "from 1"),
        ({"tick_s": 0.0}, "farm.tick_s", "at least"),
        ({"tick_s": float("nan")}, "farm.tick_s", "at least"),
        ({"settle_s": -1.0}, "farm.settle_s", "from 0"),
        ({"archive_max_bytes": 0}, "farm.archive_max_bytes", "from 1"),
        ({"ratio_max": 0}, "farm.ratio_max", "from 1"),
        ({"hook": ("",)}, "farm.hook", "command"),
        ({"class_name": "org.example.Deployer"}, "farm.class_name", "FarmWarDeployer only"),
    ],
)
def test_what_cannot_work_is_refused(changes: dict[str, object], key: str, text: str) -> None:
    """With the key, and what to write."""
    with pytest.raises(ConfigError, match=text) as refused:
        check_farm(FarmConfig(**{**DIRECTORIES, **changes}))  # type: ignore[arg-type]
    assert refused.value.key == key


def test_directories_are_apart_on_the_disk_and_not_in_name_only(tmp_path: Path) -> None:
    """A symbolic link to one, or through one, is that directory."""
    deploy = tmp_path / "deploy"
    deploy.mkdir()
    (tmp_path / "link").symlink_to(deploy)
    apart = FarmConfig(deploy_dir=str(deploy), temp_dir=str(tmp_path / "temp"))
    check_farm(apart)
    for name in ("link", "link/not-made-yet"):
        with pytest.raises(ConfigError, match=r"farm\.deploy_dir") as caught:
            check_farm(replace(apart, temp_dir=str(tmp_path / name)))
        assert caught.value.key == "farm.temp_dir"
        assert repr(str(deploy)) in str(caught.value)
