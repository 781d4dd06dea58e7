"""Interceptors: what a channel does to messages and membership on their way."""

from .compress import GzipInterceptor as GzipInterceptor
from .compress import GzipStatistics as GzipStatistics
from .coordinator import CoordinatorElected as CoordinatorElected
from .coordinator import SimpleCoordinator as SimpleCoordinator
from .dispatch import MessageDispatch15Interceptor as MessageDispatch15Interceptor
from .dispatch import MessageDispatchInterceptor as MessageDispatchInterceptor
from .domain import DomainFilterInterceptor as DomainFilterInterceptor
from .election import NonBlockingCoordinator as NonBlockingCoordinator
from .encrypt import EncryptInterceptor as EncryptInterceptor
from .failure import TcpFailureDetector as TcpFailureDetector
from .fragment import FragmentationInterceptor as FragmentationInterceptor
from .order import OrderInterceptor as OrderInterceptor
from .ping import TcpPingInterceptor as TcpPingInterceptor
from .static import StaticMembershipInterceptor as StaticMembershipInterceptor
from .throughput import Throughput as Throughput
from .throughput import ThroughputInterceptor as ThroughputInterceptor
from .two_phase import TwoPhaseCommitInterceptor as TwoPhaseCommitInterceptor
