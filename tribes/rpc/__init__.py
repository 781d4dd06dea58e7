"""Requests to members and their replies: the rules, without I/O (tribes-wire §5.3)."""

from tribes.rpc.calls import RpcBody as RpcBody
from tribes.rpc.calls import RpcMode as RpcMode
from tribes.rpc.calls import RpcReply as RpcReply
from tribes.rpc.calls import RpcResult as RpcResult
from tribes.rpc.core import RpcCore as RpcCore
from tribes.rpc.endpoints import RpcEndpoint as RpcEndpoint
from tribes.rpc.endpoints import RpcEndpoints as RpcEndpoints
