"""Sessions: what a request holds, how they are merged, and how they reach the other members."""

from .base import CommitOutcome as CommitOutcome
from .base import SessionManager as SessionManager
from .delta import DeltaManager as DeltaManager
from .inbox import CommitResult as CommitResult
from .listeners import ActivationListener as ActivationListener
from .listeners import AttributeListener as AttributeListener
from .listeners import BindingListener as BindingListener
from .listeners import ContainerListener as ContainerListener
from .listeners import EvictionListener as EvictionListener
from .listeners import SessionListener as SessionListener
from .session import Session as Session
from .statistics import ManagerStatistics as ManagerStatistics
from .values import ValueCodec as ValueCodec
