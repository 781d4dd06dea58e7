"""Deliberate faults: what the simulator with its invariants, or a test, must notice."""

from __future__ import annotations

from tests.mutants import (
    admin_mutants,
    apps_mutants,
    attach_mutants,
    channel_mutants,
    config_mutants,
    discovery_mutants,
    farm_mutants,
    group_mutants,
    health_mutants,
    identity_mutants,
    interceptor_mutants,
    memcached_mutants,
    merge_mutants,
    operations_mutants,
    own_mutants,
    pressure_mutants,
    recorder_mutants,
    security_mutants,
    session_mutants,
    store_mutants,
    transfer_mutants,
    watch_mutants,
    web_mutants,
)
from tests.mutants.registry import MUTANTS, Mutant

__all__ = ["MUTANTS", "Mutant"]

# Importing them registers them.
_ = (
    admin_mutants,
    apps_mutants,
    attach_mutants,
    channel_mutants,
    config_mutants,
    discovery_mutants,
    farm_mutants,
    group_mutants,
    session_mutants,
    web_mutants,
    own_mutants,
    recorder_mutants,
    health_mutants,
    identity_mutants,
    pressure_mutants,
    security_mutants,
    interceptor_mutants,
    store_mutants,
    transfer_mutants,
    memcached_mutants,
    watch_mutants,
    merge_mutants,
    operations_mutants,
)
