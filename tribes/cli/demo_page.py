"""The page that each node of the demo shows.

The page is one HTML file beside this module, filled in with :class:`string.Template`. What the
server fills in stands without JavaScript; the script then looks at ``/members`` and at the control
port each second. Names and ids come from other processes, so everything is escaped here, and the
script writes text only as text. The content security policy is the second lock on that door.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from html import escape
from importlib.resources import files
from string import Template
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["ICON_SVG", "PageFacts", "content_security_policy", "render_page"]

_HUES = 8  # how many node colours the style sheet has: .h0 to .h7

_MARK = (
    '<path d="M16 8 7.5 22.5h17z" fill="none" stroke="#6f7bd8" stroke-width="2.2"/>'
    '<circle cx="16" cy="7.5" r="4.5" fill="#3f6fd8"/>'
    '<circle cx="7" cy="23.5" r="4.5" fill="#9a55c8"/>'
    '<circle cx="25" cy="23.5" r="4.5" fill="#0f93a5"/>'
)

ICON_SVG = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32">{_MARK}</svg>'
"""Three members that know each other; also drawn in the page's header."""

_TILE = Template("""\
    <article class="card tile $hue$here" data-node="$name">
      <header><span class="badge" aria-hidden="true">$badge</span>
        <div><h3>$name</h3><p class="label">port $port<span class="pid"></span></p></div></header>
      <p class="state" data-state="$state"><i aria-hidden="true"></i><span>$text</span></p>
      <div class="acts"><a class="button" href="$url/" data-url="$url/"
          aria-label="Open $name">Open</a>
        <button type="button" class="kill" aria-label="Kill $name (kill -9)" disabled>\
Kill (kill -9)</button>
        <button type="button" class="start" aria-label="Start $name" hidden disabled>\
Start</button></div>
    </article>""")


@dataclass(frozen=True, slots=True)
class PageFacts:
    """What one page shows: the node that answers, the session, and the group as it sees it."""

    node: str
    pid: int
    session_id: str
    created_ms: int
    count: int
    members: Sequence[str]
    control_url: str
    peers: Mapping[str, str]


def render_page(facts: PageFacts, *, nonce: str) -> str:
    """Return the whole HTML page.

    Args:
        facts: What to show. Any text in it may be hostile.
        nonce: Marks the page's own style and script; the same as in the policy header.
    """
    names = list(facts.peers)
    others = len(names)  # members that aren't of the demo come last
    members = sorted(
        facts.members, key=lambda name: (names.index(name) if name in names else others, name)
    )
    created = datetime.fromtimestamp(facts.created_ms / 1000, UTC)
    address = urlsplit(facts.peers[facts.node]).netloc if facts.node in facts.peers else ""
    ways = (
        f'<a class="button" data-way="{escape(name)}" href="{escape(url)}/">Open {escape(name)}</a>'
        for name, url in facts.peers.items()
        if name != facts.node
    )
    data = {
        "node": facts.node,
        "pid": facts.pid,
        "session_id": facts.session_id,
        "created_ms": facts.created_ms,
        "count": facts.count,
        "members": list(facts.members),
        "control": facts.control_url,
    }
    return _page().substitute(
        nonce=escape(nonce),
        hue=_hue(facts.node, names),
        mark=_MARK,
        node=escape(facts.node),
        badge=escape(_badge(facts.node)),
        pid=facts.pid,
        address=escape(address),
        session_id=escape(facts.session_id),
        session_short=escape(_shorten(facts.session_id)),
        created_iso=created.isoformat(timespec="milliseconds"),
        created_text=created.strftime("%Y-%m-%d %H:%M:%S UTC"),
        count=facts.count,
        members="".join(f"<li>{escape(name)}</li>" for name in members),
        tiles="\n".join(_tile(name, facts, names) for name in names),
        ways="\n    ".join(ways),
        control=escape(facts.control_url),
        data=_json_in_html(data),
    )


def content_security_policy(nonce: str, control_url: str) -> str:
    """Return the policy header: nothing from elsewhere, no frame, one other host to talk to."""
    return (
        f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; "
        f"img-src 'self'; connect-src 'self' {control_url}; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


@cache
def _page() -> Template:
    return Template(files(__package__).joinpath("demo_page.html").read_text(encoding="utf-8"))


def _tile(name: str, facts: PageFacts, names: Sequence[str]) -> str:
    if name == facts.node:
        state, text = "self", "This node"
    elif name in facts.members:
        state, text = "live", "Live"
    else:
        state, text = "down", "Not seen"
    url = facts.peers[name]
    return _TILE.substitute(
        hue=_hue(name, names),
        here=" here" if name == facts.node else "",
        name=escape(name),
        badge=escape(_badge(name)),
        port=urlsplit(url).port,
        state=state,
        text=text,
        url=escape(url),
    )


def _hue(name: str, names: Sequence[str]) -> str:
    return f"h{names.index(name) % _HUES}" if name in names else "h0"


def _badge(name: str) -> str:
    """Two characters that tell the nodes apart: ``node-12`` is 12, ``paris`` is P."""
    digits = name[len(name.rstrip("0123456789")) :]
    return digits[-2:] or name[:1].upper()


def _shorten(session_id: str) -> str:
    """Must agree with ``short`` in the page's script."""
    return f"{session_id[:8]}…{session_id[-6:]}" if len(session_id) > 18 else session_id


def _json_in_html(data: object) -> str:
    # In a script element only "</" and "<!--" are special, and escape() would not be undone.
    return json.dumps(data).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
