"""Session replication for Python web applications, wire-compatible with Apache Tomcat Tribes.

Start with :class:`BackgroundNode` in a web application, or with :class:`GroupChannel` in a trio
program; :mod:`tribes.web` has the middleware.
"""

from tribes.channel.chain import Interceptor as Interceptor
from tribes.channel.outputs import MemberAdded as MemberAdded
from tribes.channel.outputs import MemberRefuted as MemberRefuted
from tribes.channel.outputs import MemberRemoved as MemberRemoved
from tribes.channel.outputs import MemberSuspected as MemberSuspected
from tribes.channel.outputs import MemberUpdated as MemberUpdated
from tribes.config.managers import PersistentConfig as PersistentConfig
from tribes.config.managers import StandardConfig as StandardConfig
from tribes.config.model import ChannelConfig as ChannelConfig
from tribes.config.model import ManagerConfig as ManagerConfig
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
from tribes.errors import GroupSendError as GroupSendError
from tribes.errors import LocalProtocolError as LocalProtocolError
from tribes.errors import MapFullError as MapFullError
from tribes.errors import MemberBehindError as MemberBehindError
from tribes.errors import MemberSuspectedError as MemberSuspectedError
from tribes.errors import MemberUnreachableError as MemberUnreachableError
from tribes.errors import NoRpcChannelError as NoRpcChannelError
from tribes.errors import ProtocolError as ProtocolError
from tribes.errors import QueueFullError as QueueFullError
from tribes.errors import RemoteProcessError as RemoteProcessError
from tribes.errors import RemoteProtocolError as RemoteProtocolError
from tribes.errors import SendTimeoutError as SendTimeoutError
from tribes.errors import SessionError as SessionError
from tribes.errors import SessionInvalidError as SessionInvalidError
from tribes.errors import SessionLimitError as SessionLimitError
from tribes.errors import SessionNotReplicatedError as SessionNotReplicatedError
from tribes.errors import StoreConflictError as StoreConflictError
from tribes.errors import StoreDataError as StoreDataError
from tribes.errors import StoreError as StoreError
from tribes.errors import StoreLimitError as StoreLimitError
from tribes.errors import TribesError as TribesError
from tribes.manager.delta import DeltaManager as DeltaManager
from tribes.manager.inbox import CommitResult as CommitResult
from tribes.maps.changes import MapChange as MapChange
from tribes.maps.changes import MapMemberChange as MapMemberChange
from tribes.membership.view import View as View
from tribes.rpc.calls import RpcMode as RpcMode
from tribes.rpc.calls import RpcReply as RpcReply
from tribes.rpc.calls import RpcResult as RpcResult
from tribes.runtime.background import BackgroundNode as BackgroundNode
from tribes.runtime.group_channel import GroupChannel as GroupChannel
from tribes.runtime.lazy_map import LazyReplicatedMap as LazyReplicatedMap
from tribes.runtime.local import LocalSessions as LocalSessions
from tribes.runtime.replicated_map import ReplicatedMap as ReplicatedMap
from tribes.runtime.rpc_channel import RpcChannel as RpcChannel
from tribes.wire.data import ChannelData as ChannelData
from tribes.wire.member import Member as Member
from tribes.wire.options import SendOptions as SendOptions
