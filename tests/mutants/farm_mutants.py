"""A farm that deploys what it must not, or not to the same end everywhere.

Plans of faults have no archives, so each of these names the test that notices it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tests.farm import test_archives, test_core, test_tomcat, test_watch
from tests.farm.contents import zip_of
from tests.farm.simulated import Farm
from tests.mutants import registry
from tests.mutants.registry import Patch, nothing
from tribes.errors import FarmError
from tribes.farm import archives, catalogue, core, names, tomcat, watch
from tribes.farm.core import FarmCore
from tribes.farm.messages import Report, Standing
from tribes.farm.names import Kind
from tribes.farm.transfer import Transfer
from tribes.testing.sim import World

if TYPE_CHECKING:
    from tribes.farm.archives import Limits
    from tribes.wire.data import ChannelData


def _add(name: str, text: str, *patches: Patch, test: Callable[[], object]) -> None:
    registry.add(f"farm: {name}", text, *patches, test=test)


def _in_farm(test: Callable[[Farm], None]) -> Callable[[], None]:
    return lambda: test(Farm(World(7)))


def _refuses(content: bytes, limits: Limits) -> None:
    """An archive that must not be unpacked."""
    with tempfile.TemporaryDirectory() as directory:
        archive, into = Path(directory, "archive"), Path(directory, "into")
        archive.write_bytes(content)
        into.mkdir()
        try:
            archives.unpack(archive, Kind.ZIP, into, limits)
        except FarmError:
            return
    raise AssertionError("it was unpacked")


def _ready_too_early(self: FarmCore, entry: catalogue.Entry) -> Report:
    return Report(entry.name.file, entry.order, Standing.READY)


def _decide_early(*_: object) -> tuple[catalogue.Phase, str]:
    return catalogue.Phase.DEPLOYED, ""


_merge = catalogue._merge_deployed


def _keep_first(slot: catalogue.Slot, entry: catalogue.Entry) -> catalogue.Merged:
    return catalogue.Merged() if slot.deployed is not None else _merge(slot, entry)


_add(
    "ready at once",
    "A member says that it is ready before it has the archive.",
    (FarmCore, "_report", _ready_too_early),
    test=_in_farm(test_core.test_a_member_that_cannot_refuses_for_all),
)
_add(
    "failures do not count",
    "What a member fails in does not refuse a deployment.",
    (core, "decide", _decide_early),
    test=_in_farm(test_core.test_a_member_that_cannot_refuses_for_all),
)
_add(
    "only the proposer decides",
    "Nobody decides when the proposer has died.",
    (core, "is_decider", lambda local, entry, others: entry.origin == local),
    test=_in_farm(test_core.test_the_proposer_dies_when_all_are_ready),
)
_add(
    "whoever came first",
    "Of two deployments at once each member keeps the one it saw first.",
    (catalogue, "_merge_deployed", _keep_first),
    test=_in_farm(test_core.test_both_sides_of_a_split_deploy),
)
_add(
    "transfers are never given up",
    "The pieces of a transfer that nobody goes on with stay for ever.",
    (FarmCore, "_give_up", nothing),
    test=test_core.test_t112_an_abandoned_transfer_is_cleaned,
)
_add(
    "begin anew",
    "A transfer that was interrupted begins at its first piece.",
    (
        FarmCore,
        "_begin",
        lambda self, entry, now, begin=FarmCore._begin: (
            self._parts.pop(entry.key, None),
            begin(self, entry, now),
        ),
    ),
    test=_in_farm(test_core.test_a_receiver_that_dies_goes_on_where_it_stood),
)
_add(
    "one piece too many",
    "As Tomcat, one piece more is expected than there is, where the size is a multiple.",
    (Transfer, "is_complete", property(lambda self: self.written > self.size // self.chunk_bytes)),
    test=lambda: test_core.test_t113_every_size_arrives(Farm(World(7)), test_core.CHUNK),
)
_add(
    "no late joiners",
    "What is deployed is not fetched by members that join later.",
    (
        FarmCore,
        "_wanted",
        lambda self, wanted=FarmCore._wanted: [
            entry for entry in wanted(self) if entry.phase is not catalogue.Phase.DEPLOYED
        ],
    ),
    test=_in_farm(test_core.test_t113_a_late_joiner_pulls),
)
_add(
    "a slip",
    "Names of entries lead wherever they say.",
    (archives, "entry_path", lambda name: tuple(name.split("/"))),
    test=partial(_refuses, zip_of({"../into/../x": b"x"}), test_archives.LIMITS),
)
_add(
    "a bomb",
    "What comes out of an archive is not counted.",
    (archives._Budget, "spend", nothing),
    test=partial(_refuses, zip_of({"zeros": bytes(4 * 2**20)}), test_archives.LIMITS),
)
_add(
    "case is told",
    "Two names that are one file on some systems are taken for two.",
    (archives, "same_path", "/".join),
    test=partial(_refuses, zip_of({"a": b"x", "A": b"y"}), test_archives.LIMITS),
)
_add(
    "devices of Windows",
    "Names of devices are names like others.",
    (names, "_is_device", lambda part: False),
    test=lambda: test_archives.test_t113_names_of_archives_that_are_refused("con.zip"),
)


def _in_directory(test: Callable[[Path], None]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        test(Path(directory))


_add(
    "what is not looked at is gone",
    "Of too many archives in the watch directory some are undeployed.",
    (watch.Look, "is_whole", property(lambda _: True, lambda *_: None)),
    test=partial(_in_directory, test_watch.test_of_too_many_files_none_counts_as_gone),
)
_heard = tomcat.TomcatDeployments.heard


def _tell_of_each(self: tomcat.TomcatDeployments, data: ChannelData) -> None:
    self.messages = 0
    _heard(self, data)


_add(
    "a notice for each piece",
    "What a Tomcat's deployer sends fills the log.",
    (tomcat.TomcatDeployments, "heard", _tell_of_each),
    test=partial(test_tomcat.test_t112_a_tomcats_deployer_is_told_of_once, test_tomcat.FILE, "an"),
)
