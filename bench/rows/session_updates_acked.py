"""Session updates per second, each of which its request waits for."""

from __future__ import annotations

from bench.updates import updates_row

ROW = updates_row("acked", 6)
