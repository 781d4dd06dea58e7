"""Session replication for Python web applications, wire-compatible with Apache Tomcat Tribes.

Start with :class:`BackgroundNode` in a web application, or with :class:`GroupChannel` in a trio
program; :mod:`tribes.web` has the middleware, :mod:`tribes.config` what a node is made from,
:mod:`tribes.manager` sessions and their listeners, :mod:`tribes.interceptors` the stages that a
message passes.

A name is loaded when it is first used: a program that reads a configuration needs no event loop,
and one that has no cluster pays nothing for it.
"""

import importlib
from typing import TYPE_CHECKING, Any, Final

from tribes import errors as _errors

if TYPE_CHECKING:  # for readers, editors and type checkers; `_CONTENTS` is for Python
    from tribes.channel.chain import Interceptor as Interceptor
    from tribes.channel.outputs import MemberAdded as MemberAdded
    from tribes.channel.outputs import MemberRefuted as MemberRefuted
    from tribes.channel.outputs import MemberRemoved as MemberRemoved
    from tribes.channel.outputs import MemberSuspected as MemberSuspected
    from tribes.channel.outputs import MemberUpdated as MemberUpdated
    from tribes.config.managers import BackupConfig as BackupConfig
    from tribes.config.managers import ContextConfig as ContextConfig
    from tribes.config.managers import ManagerConfig as ManagerConfig
    from tribes.config.managers import PersistentConfig as PersistentConfig
    from tribes.config.managers import StandardConfig as StandardConfig
    from tribes.config.memcached import MemcachedConfig as MemcachedConfig
    from tribes.config.model import ChannelConfig as ChannelConfig
    from tribes.config.model import MembershipConfig as MembershipConfig
    from tribes.config.model import NodeConfig as NodeConfig
    from tribes.config.model import ReceiverConfig as ReceiverConfig
    from tribes.config.model import SenderConfig as SenderConfig
    from tribes.config.stores import EnvelopeConfig as EnvelopeConfig
    from tribes.config.stores import FileStoreConfig as FileStoreConfig
    from tribes.config.stores import SQLStoreConfig as SQLStoreConfig
    from tribes.errors import AttributeNotEncodableError as AttributeNotEncodableError
    from tribes.errors import AttributeUnreadableError as AttributeUnreadableError
    from tribes.errors import ChannelClosedError as ChannelClosedError
    from tribes.errors import ChannelError as ChannelError
    from tribes.errors import ConfigError as ConfigError
    from tribes.errors import DiscoveryError as DiscoveryError
    from tribes.errors import FarmError as FarmError
    from tribes.errors import GroupSendError as GroupSendError
    from tribes.errors import LocalProtocolError as LocalProtocolError
    from tribes.errors import MapFullError as MapFullError
    from tribes.errors import MemberBehindError as MemberBehindError
    from tribes.errors import MemberSuspectedError as MemberSuspectedError
    from tribes.errors import MemberUnreachableError as MemberUnreachableError
    from tribes.errors import NoRpcChannelError as NoRpcChannelError
    from tribes.errors import ProtocolError as ProtocolError
    from tribes.errors import QueueFullError as QueueFullError
    from tribes.errors import RecordingError as RecordingError
    from tribes.errors import RemoteProcessError as RemoteProcessError
    from tribes.errors import RemoteProtocolError as RemoteProtocolError
    from tribes.errors import SendTimeoutError as SendTimeoutError
    from tribes.errors import SessionError as SessionError
    from tribes.errors import SessionInUseError as SessionInUseError
    from tribes.errors import SessionInvalidError as SessionInvalidError
    from tribes.errors import SessionLimitError as SessionLimitError
    from tribes.errors import SessionLockTimeoutError as SessionLockTimeoutError
    from tribes.errors import SessionNotReplicatedError as SessionNotReplicatedError
    from tribes.errors import SessionUnreachableError as SessionUnreachableError
    from tribes.errors import StoreConflictError as StoreConflictError
    from tribes.errors import StoreDataError as StoreDataError
    from tribes.errors import StoreError as StoreError
    from tribes.errors import StoreLimitError as StoreLimitError
    from tribes.errors import StoreLockedError as StoreLockedError
    from tribes.errors import StoreNodeError as StoreNodeError
    from tribes.errors import TribesError as TribesError
    from tribes.manager.delta import DeltaManager as DeltaManager
    from tribes.manager.inbox import CommitResult as CommitResult
    from tribes.manager.merged import MergedCounter as MergedCounter
    from tribes.manager.merged import MergedList as MergedList
    from tribes.manager.merged import MergedSet as MergedSet
    from tribes.maps.changes import MapChange as MapChange
    from tribes.maps.changes import MapMemberChange as MapMemberChange
    from tribes.membership.view import View as View
    from tribes.rpc.calls import RpcMode as RpcMode
    from tribes.rpc.calls import RpcReply as RpcReply
    from tribes.rpc.calls import RpcResult as RpcResult
    from tribes.runtime.attached import AttachedNode as AttachedNode
    from tribes.runtime.attached import open_node as open_node
    from tribes.runtime.attributes import ApplicationAttributes as ApplicationAttributes
    from tribes.runtime.background import BackgroundNode as BackgroundNode
    from tribes.runtime.group_channel import GroupChannel as GroupChannel
    from tribes.runtime.lazy_map import LazyReplicatedMap as LazyReplicatedMap
    from tribes.runtime.local import LocalSessions as LocalSessions
    from tribes.runtime.replicated_map import ReplicatedMap as ReplicatedMap
    from tribes.runtime.rpc_channel import RpcChannel as RpcChannel
    from tribes.wire.data import ChannelData as ChannelData
    from tribes.wire.member import Member as Member
    from tribes.wire.options import SendOptions as SendOptions

_CONTENTS: Final = {
    # A node, and what it does besides sessions.
    "tribes.runtime.background": ("BackgroundNode",),
    "tribes.runtime.attached": ("AttachedNode", "open_node"),
    "tribes.runtime.group_channel": ("GroupChannel",),
    "tribes.runtime.rpc_channel": ("RpcChannel",),
    "tribes.runtime.replicated_map": ("ReplicatedMap",),
    "tribes.runtime.lazy_map": ("LazyReplicatedMap",),
    "tribes.runtime.attributes": ("ApplicationAttributes",),
    "tribes.runtime.local": ("LocalSessions",),
    # What it is made from.
    "tribes.config.model": (
        "NodeConfig",
        "ChannelConfig",
        "MembershipConfig",
        "ReceiverConfig",
        "SenderConfig",
    ),
    "tribes.config.managers": (
        "ManagerConfig",
        "BackupConfig",
        "ContextConfig",
        "PersistentConfig",
        "StandardConfig",
    ),
    "tribes.config.memcached": ("MemcachedConfig",),
    "tribes.config.stores": ("EnvelopeConfig", "FileStoreConfig", "SQLStoreConfig"),
    # Sessions.
    "tribes.manager.delta": ("DeltaManager",),
    "tribes.manager.inbox": ("CommitResult",),
    "tribes.manager.merged": ("MergedCounter", "MergedList", "MergedSet"),
    # Members, messages, and what is told of them.
    "tribes.wire.member": ("Member",),
    "tribes.wire.data": ("ChannelData",),
    "tribes.wire.options": ("SendOptions",),
    "tribes.membership.view": ("View",),
    "tribes.channel.chain": ("Interceptor",),
    "tribes.channel.outputs": (
        "MemberAdded",
        "MemberUpdated",
        "MemberSuspected",
        "MemberRefuted",
        "MemberRemoved",
    ),
    "tribes.rpc.calls": ("RpcMode", "RpcReply", "RpcResult"),
    "tribes.maps.changes": ("MapChange", "MapMemberChange"),
    # What goes wrong: every error, in the tree that tribes.errors draws.
    "tribes.errors": tuple(_errors.__all__),
}

_HOMES: Final = {name: module for module, names in _CONTENTS.items() for name in names}

__all__ = list(_HOMES)


if not TYPE_CHECKING:  # a type checker would take it for a promise of any name at all

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(_HOMES[name]), name)
        globals()[name] = value  # found without this function from now on
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
