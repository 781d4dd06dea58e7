"""Which release of the product this is."""

from __future__ import annotations

__all__ = ["product_version"]


def product_version() -> str:
    """The installed version; ``unknown`` where it is not installed."""
    from importlib.metadata import PackageNotFoundError, version  # thirty modules

    try:
        return version("tribes")
    except PackageNotFoundError:
        return "unknown"
