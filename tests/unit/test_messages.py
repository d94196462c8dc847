"""Control messages: typed, named, refused when malformed."""

import msgpack
import pytest

from mesh.core import messages as m
from mesh.core import pulse
from mesh.core.keyspace import MAX_PARTITIONS
from mesh.core.wire import FrameReader, Kind
from mesh.errors import ProtocolError

N = b"\x01\x02\x03\x04\x05\x06\x07\x08"
ALL = [
    m.Hello("default", "client", "secret", N),
    m.Welcome("default", "handler", "h-0", N, 256),
    m.Refused("wrong token", True),
    m.Register("h-0", N, "127.0.0.1", 7001, 42, "\0warden", 1.5, "eu", None, 2, 3, b"\0\0\0\1", 4),
    m.Grant(5, N, 2, 3, True, b"\0\0\0\1"),
    m.Adopted(N, 2, 3),
    m.Release(5, [(1, 0x10001)]),
    m.Released(N, 5, [(1, 0x10001)], [(2, 0x10001)]),
    m.Dropped(N, [(1, 0x10001)]),
    m.Missing(N, 2, 7),
    m.Beat(N, 3, 1, 2, 3, 4, 5),
    m.Stop(5),
    m.Goodbye((1 << 64) - 1),
    m.Complaints([(N, 50, 0.5, 0.0, 0.01, 0.002)]),
    m.ClientSays("10.0.0.7", 12, [(N, 50, 0.5, 0.0, 0.01, 0.002)]),
    m.WardenHere("w-0", "node", 7, [N]),
    m.Exited(N, "h-0", 1.25),
    m.Leading(6, 2, "s-1"),
    m.LeaderBeat(6, 2, 9),
    m.SupervisorHere("s-1", "127.0.0.1", 7400, 43),
    m.Happened(N, 17, b"{}", True),
    m.Ask(1, "status", ["x", 1]),
    m.Answer(1, "", b"{}"),
    *(
        pulse.Pulse(
            N, 1, 2, 3.5, "S", 4.5, 5.5, 6, 7.5, 8.5, "A.b", 9.5, 30e3, 80.5, 1, 2, 3, 4.5, 5, 6.5
        ),
        pulse.Probe(1),
        pulse.Echo(N, 1),
        pulse.ProbeFor(5, 1, N, "127.0.0.1:7001", 200.0),
        pulse.Probed(1, N, N, False, "no echo"),
        pulse.Watches(N),
        pulse.Look(5, N),
        pulse.Seen(N, 1.5, "R", 2.5, 3.5, 4, 5.5, 6.5),
        pulse.Kill(5, N, 500.0, 1.5, "stopped", 4),
    ),
]


def unframed(message):
    [(kind, body)] = FrameReader().feed(message.frame())
    assert kind == Kind.CONTROL
    return m.unpack_message(body)


def as_lists(value):
    """Tuples are lists on the wire."""
    return [as_lists(v) for v in value] if isinstance(value, list | tuple) else value


@pytest.mark.parametrize("message", ALL, ids=lambda message: type(message).__name__)
def test_a_message_arrives_as_it_was_sent(message):
    got = unframed(message)
    assert type(got) is type(message)
    for name in message.__dataclass_fields__:
        assert as_lists(getattr(got, name)) == as_lists(getattr(message, name))


def test_every_kind_of_message_is_tried_above():
    assert {type(message).__name__ for message in ALL} == set(m.Message._known)


def test_a_release_may_name_every_partition_of_the_largest_mesh():
    pairs = [(p, 0xFFFFFFFF) for p in range(MAX_PARTITIONS)]
    assert len(unframed(m.Released(N, 1, pairs, [])).partitions) == MAX_PARTITIONS


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (7, "not a control message"),
        ([], "not a control message"),
        ([7], "not a control message"),
        (["Nonsense", 1], "unknown control message 'Nonsense'"),
        (["Message"], "unknown control message"),
        (["Stop"], "malformed Stop"),
        (["Stop", 1, 2], "malformed Stop"),
    ],
)
def test_what_is_no_message_is_refused(value, says):
    with pytest.raises(ProtocolError, match=says):
        m.unpack_message(msgpack.packb(value))


def test_an_unknown_name_is_shown_cut_short():
    with pytest.raises(ProtocolError) as caught:
        m.unpack_message(msgpack.packb(["x" * 10_000]))
    assert len(caught.value.message) < 200
