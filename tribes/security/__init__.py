"""What a group key buys: proof of who speaks, refusal of what was said before, sealed links.

``keys`` the group's keys and what is derived from them, ``mark`` the signed trailer of heartbeats,
``replay`` the memory of what was heard, ``seal`` the encryption of links, ``plain_peers`` who needs
none of it. All of it is pure: random bytes and times are handed in. Heartbeats need the standard
library only; the package ``cryptography`` is imported when the first link is sealed, and never
without a key.
"""

from __future__ import annotations

from tribes.security.keys import GroupKey as GroupKey
from tribes.security.keys import KeyRing as KeyRing
from tribes.security.mark import Mark as Mark
from tribes.security.mark import Marker as Marker
from tribes.security.mark import Verdict as Verdict
from tribes.security.plain_peers import PlainPeers as PlainPeers
from tribes.security.replay import Heard as Heard
from tribes.security.replay import ReplayGuard as ReplayGuard
from tribes.security.seal import LinkKeys as LinkKeys
from tribes.security.seal import Opener as Opener
from tribes.security.seal import Sealer as Sealer
