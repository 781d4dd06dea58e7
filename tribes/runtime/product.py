"""Which release of the product this is."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

__all__ = ["product_version"]


def product_version() -> str:
    """The installed version; ``unknown`` where it is not installed."""
    try:
        return version("tribes")
    except PackageNotFoundError:
        return "unknown"
