"""The rows, in the order of the table."""

from bench.rows import (
    acked_latency,
    acked_throughput,
    anti_entropy,
    async_throughput,
    crash_noticed,
    encryption,
    growth,
    hang_noticed,
    hung_neighbour,
    join,
    replica_memory,
    session_cost,
    session_updates_acked,
    session_updates_async,
    stale_reads,
    state_transfer,
    wire_bytes,
)

ROWS = {
    module.ROW.name: module.ROW
    for module in (
        acked_latency,
        acked_throughput,
        async_throughput,
        session_updates_async,
        session_updates_acked,
        stale_reads,
        session_cost,
        wire_bytes,
        replica_memory,
        state_transfer,
        anti_entropy,
        join,
        crash_noticed,
        hang_noticed,
        hung_neighbour,
        encryption,
        growth,
    )
}
