"""Archives that operators send: in pieces, one at a time, with a token."""

from __future__ import annotations

import hashlib
import re
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx
import trio

from tests.admin.conftest import TOKEN
from tests.admin.test_status import METRICS
from tests.farm.contents import zip_of
from tribes.admin.desk import open_desk
from tribes.admin.recorder import Failures
from tribes.config.farm import FarmConfig
from tribes.config.http import HttpConfig
from tribes.config.model import ChannelConfig, MembershipConfig, NodeConfig, ReceiverConfig
from tribes.farm.service import Farm, open_farm
from tribes.runtime.group_channel import GroupChannel

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

OCTETS = {"Content-Type": "application/octet-stream"}


@asynccontextmanager
async def operated(directory: Path, capsys: Any) -> AsyncIterator[tuple[Farm, httpx.AsyncClient]]:
    """A member that is alone, with a farm and a port."""
    token = directory / "token"
    token.touch(mode=0o600)
    token.write_text(TOKEN)
    config = NodeConfig(
        name="n1",
        channel=ChannelConfig(
            membership=MembershipConfig(multicast=False), receiver=ReceiverConfig(port=0)
        ),
    )
    channel = GroupChannel(config)
    farm = Farm(
        channel,
        FarmConfig(deploy_dir=f"{directory}/d", temp_dir=f"{directory}/t", archive_max_bytes=10**6),
    )
    http = HttpConfig(port=0, token_file=str(token))
    with trio.fail_after(40):
        async with channel, open_farm(farm), open_desk(http, channel, Failures(), farm=farm):
            out = capsys.readouterr().out
            url = out.partition("url=")[2].split()[0]
            headers = {"Authorization": f"Bearer {TOKEN}"}
            async with httpx.AsyncClient(base_url=url, headers=headers, trust_env=False) as client:
                yield farm, client


async def test_an_archive_is_sent_in_pieces(tmp_path: Path, capsys: Any) -> None:
    """A wrong offset, a second upload, too many bytes and a wrong digest are refused; nothing is
    left of what is not deployed.
    """
    content = zip_of({"a": b"x"}, size=300_000)
    digest = hashlib.sha256(content).hexdigest()
    async with operated(tmp_path, capsys) as (farm, http):
        asked = {"name": "shop.zip", "size": len(content)}
        upload = (await http.post("/farm/begin", json=asked)).json()["upload"]
        assert (await http.post("/farm/begin", json=asked)).status_code == 409
        path = f"/farm/piece?upload={upload}&offset="
        assert (await http.post(path + "0", content=content[:9])).status_code == 415
        first, rest = content[:200_000], content[200_000:]
        assert (await http.post(path + "0", content=first, headers=OCTETS)).status_code == 200
        again = await http.post(path + "0", content=first, headers=OCTETS)
        assert (again.status_code, again.json()["error"]) == (
            409,
            "200000 bytes of it are here; go on there",
        )
        # A disk that was full took some bytes of a piece, and the operator tries it again.
        [part] = [each for each in (tmp_path / "t").iterdir() if each.is_file()]
        with part.open("ab") as file:
            file.write(b"half a piece")
        more = await http.post(path + "200000", content=first, headers=OCTETS)
        assert more.status_code == 400
        large = await http.post(path + "200000", content=bytes(300_000), headers=OCTETS)
        assert large.status_code == 413
        assert (await http.post(path + "200000", content=rest, headers=OCTETS)).status_code == 200
        done = await http.post("/farm/deploy", json={"upload": upload, "sha256": digest})
        assert (done.status_code, done.json()["app"]) == (202, "shop")
        while "shop" not in farm.core.installed:  # noqa: ASYNC110 - it tells nobody
            await trio.sleep(0.05)
        assert (tmp_path / "d" / "shop" / "a").read_bytes() == b"x"
        upload = (await http.post("/farm/begin", json=asked)).json()["upload"]
        wrong = await http.post("/farm/deploy", json={"upload": upload, "sha256": digest})
        assert wrong.status_code == 422
        assert list((tmp_path / "t").iterdir()) == []
        assert (await http.get("/status")).json()["farm"]["applications"][0]["app"] == "shop"
        metrics = (await http.get("/metrics")).text
        assert "tribes_farm_applications 1.0" in metrics
        shown = set(re.findall(r"^(tribes_farm_\w+) ", metrics, re.MULTILINE))
        assert set(re.findall(r"`(tribes_farm_[a-z_]+)`", METRICS.read_text())) == shown


async def test_what_cannot_be_deployed_is_refused_before_it_is_sent(
    tmp_path: Path, capsys: Any
) -> None:
    """By its name, its size, and by who asks."""
    async with operated(tmp_path, capsys) as (_, http):
        for name, size in (("../x.zip", 1), ("x.rar", 1), ("x.zip", 10**6 + 1), ("x.zip", -1)):
            refused = await http.post("/farm/begin", json={"name": name, "size": size})
            assert refused.status_code == 400, name
        for path in ("begin", "piece", "deploy", "undeploy"):
            headers = {"Authorization": "Bearer wrong-wrong-wrong-wrong"}
            assert (await http.post(f"/farm/{path}", headers=headers)).status_code == 401
            assert (await http.get(f"/farm/{path}")).status_code == 405
        gone = await http.post("/farm/deploy", json={"upload": "x", "sha256": "é"})
        assert gone.status_code == 404
        assert (await http.post("/farm/undeploy", json={"app": "shop"})).status_code == 404
