"""What the tests of Apache Tomcat's Tribes assert, and which tests of ours assert it here.

One entry for each assertion of theirs, by the name of their test class. Where ours differs on
purpose, the entry says how. ``test_assertions.py`` checks that every test named here exists.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["ASSERTIONS", "Assertion"]


@dataclass(frozen=True)
class Assertion:
    """One thing that an upstream test asserts.

    Attributes:
        upstream: The class of the upstream test.
        what: What it asserts.
        tests: Ours, as ``file::function`` below ``tests``.
        differs: What is otherwise here, and why; empty: nothing.
    """

    upstream: str
    what: str
    tests: tuple[str, ...]
    differs: str = ""


_VALUES = "upstream/test_values.py::"
_GROUPS = "upstream/test_groups.py::"
_SOCKETS = "upstream/test_sockets.py::"
_ENCRYPT = "interceptors/test_encrypt.py::"

ASSERTIONS: Final = (
    Assertion(
        "TestXByteBuffer", "zero bytes are null", ("wire/test_java.py::test_zero_bytes_are_null",)
    ),
    Assertion(
        "TestXByteBuffer",
        '"This is as test." survives',
        (_VALUES + "test_a_text_survives_as_a_java_object",),
    ),
    Assertion(
        "TestChannelData",
        "a clone is another object, and equal",
        (_VALUES + "test_a_copy_of_a_message_is_equal_to_it",),
    ),
    Assertion(
        "TestMemberImplSerialization",
        "localhost:3333 is equal with and without a payload of 333 bytes, and by address; port 3331"
        " differs",
        (
            _VALUES + "test_a_member_is_equal_with_any_payload",
            "wire/test_member.py::test_identity_is_host_port_and_unique_id",
        ),
        "names are resolved by the runtime, not in a member",
    ),
    Assertion(
        "TestMemberImplSerialization",
        "UDP port 3445, domain 01..09 and a command of 8 bytes survive",
        (_VALUES + "test_fields_of_a_member_survive",),
    ),
    Assertion(
        "TestMemberImplSerialization",
        "the record is the same on a second call; 50 ms later a refreshed one differs, and is equal"
        " as a member",
        (
            _VALUES + "test_a_refreshed_record_is_another_and_its_member_the_same",
            "wire/test_member.py::test_patching_changes_the_alive_time_only",
        ),
        "records are immutable bytes, so equality stands for identity",
    ),
    Assertion(
        "TestMembership",
        "a clone shares members but not its structure",
        (_VALUES + "test_a_view_is_a_copy_of_its_own",),
        "a view cannot change at all, so there is no lock to share",
    ),
    Assertion(
        "TestKubernetesJson",
        "two Running pods are two members, the first with host 10.130.140.153",
        ("runtime/test_discovery.py::test_running_pods_are_hosts",),
        "a pod is a host to ask; its member is who answers there",
    ),
    Assertion(
        "TestGroupChannelStartStop",
        "a second start does nothing, a second identical partial start fails",
        ("runtime/test_group_channel.py::test_channel_is_used_inside_its_block_only",),
        "a channel is entered once and whole: a second time is an error, parts cannot be started",
    ),
    Assertion(
        "TestGroupChannelStartStop",
        "start and stop with a UDP port",
        (_SOCKETS + "test_a_member_starts_and_stops_again_on_the_same_ports",),
    ),
    Assertion(
        "TestGroupChannelOptionFlag",
        "flags 128 and 128 conflict; 128, 64 and 256 do not",
        (
            "interceptors/test_rules.py::"
            "test_option_flags_that_cover_each_other_are_refused_on_request",
        ),
        "the text names both interceptors instead of no faulty members",
    ),
    Assertion(
        "TestGroupChannelMemberArrival",
        "of ten members of one domain each sees exactly nine come within 5 s",
        (
            _GROUPS + "test_ten_members_of_a_domain_see_nine_each",
            "sim/test_interceptors.py::test_members_of_other_domains_are_not_seen",
        ),
    ),
    Assertion(
        "TestGroupChannelSenderConnections",
        "three messages arrive within 15 s: at once, with no connection kept, with connections kept"
        " for 1 s",
        (
            _GROUPS + "test_kept_connections_lose_no_message",
            "links/test_plain.py::test_a_connection_is_worn_out_after_so_many_messages",
            "links/test_plain.py::test_a_connection_is_worn_out_after_so_long",
        ),
    ),
    Assertion(
        "TestDomainFilterInterceptor",
        "ten members of ten domains see nobody",
        (_GROUPS + "test_ten_members_of_ten_domains_see_nobody",),
    ),
    Assertion(
        "TestTcpFailureDetector",
        "of a member whose receiver stopped up to five sends fail, and it is removed",
        (_GROUPS + "test_member_whose_receiver_stopped_fails_sends_and_is_removed",),
    ),
    Assertion(
        "TestTcpFailureDetector",
        "a member without a receiver is not seen in 6 s",
        (_GROUPS + "test_member_without_receiver_never_appears",),
    ),
    Assertion(
        "TestTcpFailureDetector",
        "a member that sends no heartbeats is listed 5 s later, and a send succeeds",
        (_GROUPS + "test_member_that_only_stopped_its_heartbeats_stays",),
    ),
    Assertion(
        "TestOrderInterceptor",
        "100 numbers in swapped pairs come out in order",
        ("interceptors/test_order.py::test_swapped_pairs_come_out_in_order",),
    ),
    Assertion(
        "TestOrderInterceptor",
        "five senders of 100 each",
        ("interceptors/test_order.py::test_five_senders_are_ordered_each",),
    ),
    Assertion(
        "TestGzipInterceptor",
        "round trips of the byte 1, 1024 to 21480 times",
        ("interceptors/test_compress.py::test_round_trip_of_ones",),
    ),
    Assertion(
        "TestEncryptInterceptor",
        'round trips of the fox, "x", 1 MiB of zeros; keys of 128, 192 and 256 bits',
        (_ENCRYPT + "test_round_trips",),
    ),
    Assertion(
        "TestEncryptInterceptor",
        "five messages; a ciphertext that was kept in a file",
        (_ENCRYPT + "test_five_messages_and_their_bytes_apart_from_the_channel",),
    ),
    Assertion(
        "TestEncryptInterceptor",
        "an explicit provider",
        (_ENCRYPT + "test_named_provider_makes_no_difference",),
        "accepted and reported as without effect",
    ),
    Assertion(
        "TestEncryptInterceptor",
        "two encryptions differ",
        (_ENCRYPT + "test_two_encryptions_of_one_message_differ",),
    ),
    Assertion(
        "TestEncryptInterceptor",
        "a duplicate is delivered once",
        (_ENCRYPT + "test_copy_is_delivered_once",),
    ),
    Assertion(
        "TestEncryptInterceptor",
        "with a window of 50 ms a message of 1000 ms ago is dropped",
        (_ENCRYPT + "test_old_message_is_refused",),
        "its sender is told that it was not processed",
    ),
    Assertion(
        "TestEncryptInterceptor",
        "with a count of 2 four in order are accepted, then the first again is not",
        (_ENCRYPT + "test_count_of_two_remembers_two",),
    ),
    Assertion(
        "TestEncryptInterceptor",
        "with a count of 2 timestamps +300, +100, +200, +225, +250 are all accepted",
        (_ENCRYPT + "test_times_out_of_order_are_accepted",),
    ),
    Assertion(
        "TestEncryptInterceptor",
        "100 threads of 10 messages",
        (_ENCRYPT + "test_a_hundred_senders_of_ten",),
        "the core has one thread; the order of arrival is turned round instead",
    ),
    Assertion(
        "TestEncryptInterceptor",
        "TcpFailureDetector above it is a configuration error",
        (_ENCRYPT + "test_failure_detector_above_is_a_configuration_error",),
    ),
    Assertion(
        "TestEncryptInterceptorLargeHeap",
        "a round trip of 1 GiB",
        (_ENCRYPT + "test_large_message",),
        "32 MiB: twice what a frame may have here",
    ),
    Assertion(
        "TestEncryptInterceptorAlgorithms",
        "of 32 pairs of mode and padding four succeed",
        (_ENCRYPT + "test_only_four_of_all_modes_are_accepted",),
    ),
    Assertion(
        "TestNonBlockingCoordinator",
        "ten members name one coordinator, and another one after it stopped",
        (
            "sim/test_interceptors.py::"
            "test_ten_members_elect_a_coordinator_and_another_after_its_death",
            "interceptors/test_election.py::"
            "test_ten_members_agree_and_agree_again_without_the_coordinator",
        ),
    ),
    Assertion(
        "TestDataIntegrity",
        "20 senders of 500 without acknowledgement and asynchronously, 500 asynchronously, with"
        " USE_ACK and synchronously: all arrive whole in time",
        (_SOCKETS + "test_every_message_arrives_whole",),
    ),
    Assertion(
        "TestUdpPackages",
        "one message within 500 ms",
        (_GROUPS + "test_one_datagram_arrives_within_half_a_second",),
    ),
    Assertion(
        "TestUdpPackages",
        "20 senders of 500 without acknowledgement and asynchronously within 25 s",
        (_GROUPS + "test_twenty_senders_of_five_hundred_datagrams",),
        "in the simulator: on real sockets the system may drop any of them",
    ),
    Assertion(
        "TestUdpPackages",
        "500 asynchronously within 5 s, 500 with USE_ACK, 500 synchronously",
        (
            _SOCKETS + "test_every_acknowledged_datagram_arrives_whole",
            _GROUPS + "test_five_hundred_datagrams_of_one_sender",
        ),
    ),
    Assertion(
        "TestMulticastPackages",
        "the same numbers by multicast",
        (
            _GROUPS + "test_twenty_senders_of_five_hundred_datagrams",
            _GROUPS + "test_five_hundred_datagrams_of_one_sender",
            _GROUPS + "test_one_datagram_arrives_within_half_a_second",
            "channel/test_datagrams.py::"
            "test_a_message_to_the_group_is_one_datagram_and_never_acknowledged",
        ),
    ),
    Assertion(
        "TestRemoteProcessException",
        "of 10,000 messages every one whose listener raised is an error, and no other",
        (_GROUPS + "test_every_send_that_a_listener_failed_is_an_error_and_no_other",),
        "the listener is called once for each, not twice",
    ),
    Assertion(
        "TestChannelConfig",
        '72, "multicast" and "async, multicast" as options; 72 is shown as "multicast, async"',
        (
            "upstream/test_values.py::test_options_by_number_and_by_name",
            "wire/test_options.py::test_names_come_from_the_highest_bit_down",
        ),
    ),
)
