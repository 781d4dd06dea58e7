"""Looks for what keeps a node from working in its group: ``tribes doctor``.

:mod:`~tribes.admin.doctor.machine` looks at this machine, :mod:`~tribes.admin.doctor.listening` at
the group's datagrams, :mod:`~tribes.admin.doctor.asking` at the members' ports, and
:mod:`~tribes.admin.doctor.group` judges what these found. Nobody becomes a member: a datagram that
is no member record is dropped by all, and a HELLO that asks who is there is answered and forgotten.
"""
