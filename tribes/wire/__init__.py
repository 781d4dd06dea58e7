"""Bytes in, values out: everything that crosses the network, and nothing that does I/O.

``member`` the member record, ``frame`` what separates messages, ``data`` what a message holds,
``options`` its flags, ``probes`` the messages that nobody should see, ``byte_array`` a piece of
configuration text, ``codec`` the encoding of our own control messages, ``limits`` every bound.

Peers' bytes are wrong with `RemoteProtocolError`, our own use with `LocalProtocolError`.
"""

from __future__ import annotations

from tribes.wire.byte_array import parse_byte_array as parse_byte_array
from tribes.wire.codec import pack as pack
from tribes.wire.codec import unpack as unpack
from tribes.wire.data import ChannelData as ChannelData
from tribes.wire.data import decode_body as decode_body
from tribes.wire.data import encode_body as encode_body
from tribes.wire.data import encode_data_frame as encode_data_frame
from tribes.wire.frame import ACK_BODY as ACK_BODY
from tribes.wire.frame import ACK_FRAME as ACK_FRAME
from tribes.wire.frame import FAIL_ACK_BODY as FAIL_ACK_BODY
from tribes.wire.frame import FAIL_ACK_FRAME as FAIL_ACK_FRAME
from tribes.wire.frame import FRAME_END as FRAME_END
from tribes.wire.frame import FRAME_OVERHEAD as FRAME_OVERHEAD
from tribes.wire.frame import FRAME_START as FRAME_START
from tribes.wire.frame import FrameDecoder as FrameDecoder
from tribes.wire.frame import encode_frame as encode_frame
from tribes.wire.member import MEMBER_BEGIN as MEMBER_BEGIN
from tribes.wire.member import MEMBER_END as MEMBER_END
from tribes.wire.member import SHUTDOWN_COMMAND as SHUTDOWN_COMMAND
from tribes.wire.member import Member as Member
from tribes.wire.member import decode_member as decode_member
from tribes.wire.member import decode_member_with_length as decode_member_with_length
from tribes.wire.member import encode_member as encode_member
from tribes.wire.member import host_octets as host_octets
from tribes.wire.member import listing_order as listing_order
from tribes.wire.member import patch_alive as patch_alive
from tribes.wire.options import SendOptions as SendOptions
from tribes.wire.options import format_send_options as format_send_options
from tribes.wire.options import parse_send_options as parse_send_options
from tribes.wire.options import wire_options as wire_options
from tribes.wire.probes import FAILURE_DETECTOR_PAYLOAD as FAILURE_DETECTOR_PAYLOAD
from tribes.wire.probes import TCP_PING_PAYLOAD as TCP_PING_PAYLOAD
from tribes.wire.probes import is_probe as is_probe
