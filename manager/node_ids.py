"""Ids of sessions that name the server of their copies: ``<token>-<node>`` (msm-sessions §5.1).

The name is a hint where to look first.  It is no part of the session's key: keys of stored values
have none, and whatever a client writes there can only cost a look in the wrong place.
"""

from __future__ import annotations

from typing import Final

from .session_ids import is_possible_id

__all__ = ["split_node", "suffix_of"]

NODE_MAX_CHARS: Final = 64


def split_node(session_id: str) -> tuple[str, str]:
    """Return token and node of an id, both empty if no session can have it."""
    token, _, node = session_id.partition("-")
    if not is_possible_id(token) or len(node) > NODE_MAX_CHARS:
        return "", ""
    return token, node


def suffix_of(node: str) -> str:
    """Return what stands behind the token for a node; nothing for one without a name."""
    return f"-{node}" if node else ""
