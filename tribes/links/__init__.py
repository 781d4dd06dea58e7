"""Connections between members: what may be under way on them, and what ends it. Sans-I/O."""

from tribes.links.base import OutFrame as OutFrame
from tribes.links.base import PeerSender as PeerSender
from tribes.links.plain import PlainSender as PlainSender
from tribes.links.plain_receiver import PlainReceiver as PlainReceiver
