from __future__ import annotations

from tribes.wire.probes import FAILURE_DETECTOR_PAYLOAD, TCP_PING_PAYLOAD, is_probe


def test_probes_are_recognised_by_all_their_bytes() -> None:
    """Both payloads are probes; a byte more, less or different is a message."""
    for payload in (FAILURE_DETECTOR_PAYLOAD, TCP_PING_PAYLOAD):
        assert len(payload) == 64
        assert is_probe(payload)
        assert not is_probe(payload[:-1])
        assert not is_probe(payload + b"\0")
        assert not is_probe(payload[:-1] + b"\0")
    assert not is_probe(b"")
