"""Session updates per second, which no request waits for."""

from __future__ import annotations

from bench.updates import updates_row

ROW = updates_row("async", 8)
