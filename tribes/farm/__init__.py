"""Farm deployment: an archive that one member is given is deployed on all, or on none.

``core`` decides and does no I/O; ``service`` drives it on a channel, with the files of ``disk``.
"""
