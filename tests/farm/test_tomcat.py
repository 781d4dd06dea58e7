"""What a Tomcat of the group says when it deploys, and what is told of it."""

from __future__ import annotations

import pytest
import structlog.testing

from tribes.channel.outputs import Deliver
from tribes.farm.tomcat import TomcatDeployments
from tribes.runtime.listeners import ListenerRegistry
from tribes.wire.data import ChannelData
from tribes.wire.java import encode_java
from tribes.wire.member import Member

# How the streams of Tomcat 10.1.60 begin, whole classes and data left out.
FILE = bytes.fromhex(
    "aced0005737200296f72672e6170616368652e636174616c696e612e68612e6465706c6f792e46696c654d657373"
    "616765000000000000000202000649000a646174614c656e677468"
)
UNDEPLOY = bytes.fromhex(
    "aced00057372002d6f72672e6170616368652e636174616c696e612e68612e6465706c6f792e556e6465706c6f79"
    "4d65737361676500000000000000020200044a000974696d657374616d70"
)


def deliver(registry: ListenerRegistry, message: bytes, options: int = 8) -> None:
    source = Member(bytes((192, 0, 2, 1)), 4000, bytes(16), payload=b"tomcat-1")
    data = ChannelData(options, 0, bytes(16), source, message)
    assert registry.deliver(Deliver(1, source, data)) is None, "it is not done at once"


@pytest.mark.parametrize(
    ("message", "sends"), [(FILE, "an archive"), (UNDEPLOY, "to go")], ids=["file", "undeploy"]
)
def test_t112_a_tomcats_deployer_is_told_of_once(message: bytes, sends: str) -> None:
    """Nothing here can serve it, and each piece of an archive is a message: one line in the log."""
    registry, tomcat = ListenerRegistry(max_threads=1), TomcatDeployments()
    tomcat.listen(registry)
    with structlog.testing.capture_logs() as lines:
        deliver(registry, encode_java("something else"))
        deliver(registry, message, options=1)  # Plain bytes that happen to be the same.
        assert not lines
        for _ in range(1000):
            deliver(registry, message)
        deliver(registry, FILE)
        deliver(registry, UNDEPLOY)
    [line] = lines
    assert (line["log_level"], line["member"]) == ("warning", "tomcat-1")
    assert sends in line["sends"]
    assert "tribes deploy" in line["instead"]
    assert tomcat.messages == 1002
