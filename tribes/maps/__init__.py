"""Maps that members share, on the machinery that replicates sessions (DESIGN §5.5).

A map is a context of its own. Each entry is one record in a
:class:`~tribes.manager.table.SessionTable`, so versions, merge, state transfer, repair and digests
are those of sessions, and there is one anti-entropy in the program. That is why this package stands
above the manager and not below it.
"""

from tribes.maps.changes import MapChange as MapChange
from tribes.maps.keys import MapKey as MapKey
from tribes.maps.manager import MapManager as MapManager
