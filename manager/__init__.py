"""Sessions: what a request holds, how they are merged, and how they reach the other members."""

from .base import CommitOutcome as CommitOutcome
from .base import SessionManager as SessionManager
from .delta import DeltaManager as DeltaManager
from .inbox import CommitResult as CommitResult
from .session import Session as Session
from .values import ValueCodec as ValueCodec
