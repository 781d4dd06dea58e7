"""Deliberate protocol faults: what the simulator and its invariants must notice."""

from __future__ import annotations

from tests.mutants import (
    channel_mutants,
    group_mutants,
    interceptor_mutants,
    own_mutants,
    session_mutants,
)
from tests.mutants.registry import MUTANTS, Mutant

__all__ = ["MUTANTS", "Mutant"]

# Importing them registers them.
_ = (channel_mutants, group_mutants, session_mutants, own_mutants, interceptor_mutants)
