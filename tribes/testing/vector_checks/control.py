"""Checks of messages that interceptors send to each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tribes.testing.vector_checks.frame import expect_data_frame
from tribes.testing.vector_checks.registry import NotBuilt, check
from tribes.wire.probes import FAILURE_DETECTOR_PAYLOAD

if TYPE_CHECKING:
    from tribes.testing.vector_checks.registry import Vector


@check("control")
def check_control(vector: Vector) -> None:
    """The failure detector's probe is the frame that Tomcat sends."""
    if vector["message_hex"] != FAILURE_DETECTOR_PAYLOAD.hex():
        raise NotBuilt(vector["name"])
    expect_data_frame(vector, vector["inputs"], FAILURE_DETECTOR_PAYLOAD)
