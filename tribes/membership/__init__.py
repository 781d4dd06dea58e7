"""Membership services: who is in the group. Sans-I/O."""

from tribes.membership.change import ChangeKind as ChangeKind
from tribes.membership.change import MemberChange as MemberChange
from tribes.membership.change import RemovalReason as RemovalReason
from tribes.membership.multicast import MulticastMembership as MulticastMembership
from tribes.membership.table import MembershipTable as MembershipTable
