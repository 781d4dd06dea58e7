"""Writes docs/features.md: ``python -m tests.features.write``."""

from __future__ import annotations

from tests.features.rows import PAGE, page

if __name__ == "__main__":
    PAGE.write_text(page())
