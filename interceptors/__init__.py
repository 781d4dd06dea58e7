"""Interceptors: what a channel does to messages and membership on their way."""

from .dispatch import MessageDispatch15Interceptor as MessageDispatch15Interceptor
from .dispatch import MessageDispatchInterceptor as MessageDispatchInterceptor
from .failure import TcpFailureDetector as TcpFailureDetector
