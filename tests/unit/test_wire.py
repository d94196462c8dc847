"""Frames: what goes out comes in, and what is no frame ends at its first bytes."""

import msgpack
import pytest

from mesh.core.wire import (
    ForeignProtocol,
    FrameReader,
    Kind,
    Limits,
    Redirect,
    Reply,
    Request,
    Status,
    pack_frame,
    pack_reply,
    pack_request,
    unpack_envelope,
    unpack_reply,
    unpack_request,
)
from mesh.errors import ProtocolError

BIG = 2**64 - 1
REQUEST = Request(BIG, BIG - 1, 7, 255, 0xFFFFFFFF, 10_000, 12, 3, 1, b"payload", 2)
SMALL = Limits(frame_bytes=64)


def read(*chunks, limits=None):
    reader = FrameReader(limits)
    return [frame for chunk in chunks for frame in reader.feed(chunk)]


def test_a_request_arrives_as_it_was_sent():
    [(kind, body)] = read(pack_request(REQUEST))
    assert kind == Kind.REQUEST
    assert unpack_request(body) == REQUEST


def test_a_reply_arrives_as_it_was_sent():
    [(kind, body)] = read(pack_reply(BIG, Status.REDIRECT, b"where"))
    assert kind == Kind.REPLY
    assert unpack_reply(body) == Reply(BIG, Status.REDIRECT, b"where")


def test_a_redirect_arrives_as_it_was_sent():
    redirect = Redirect(3, 0x10001, "h-1", b"\0" * 8, "::1", 7400)
    assert Redirect.decode(redirect.encode()) == redirect


@pytest.mark.parametrize("payload", [b"", b"\xc1", msgpack.packb(3), msgpack.packb([1, 2])])
def test_a_payload_that_is_no_redirect_is_refused(payload):
    with pytest.raises(ProtocolError):
        Redirect.decode(payload)


def test_several_frames_in_one_chunk_come_out_in_order():
    stream = b"".join(pack_reply(n, 0, b"x" * n) for n in range(5))
    assert [unpack_reply(body).counter for _, body in read(stream)] == list(range(5))


def test_the_layout_of_a_request_is_fixed():
    """Other versions and languages read it: length, version, kind, flags, then the header."""
    frame = pack_request(Request(1, 2, 3, 4, 5, 6, 7, 8, 9, b"p"))
    assert frame[:8].hex() == "0000003101020000"
    assert frame[8:32] == b"".join(n.to_bytes(8, "big") for n in (1, 2, 3))
    assert frame[32:48] == b"".join(n.to_bytes(4, "big") for n in (4, 5, 6, 7))
    assert frame[48:] == b"\x08\x09\0\0p"
    frame = pack_request(Request(1, 2, 3, 4, 5, 6, 7, 8, 9, b"p", 0x0A0B))
    assert frame[48:] == b"\x08\x09\x0a\x0bp"


def test_a_frame_at_the_limit_is_taken_and_one_byte_more_is_refused():
    body = SMALL.frame_bytes - 4
    assert read(pack_frame(Kind.TABLE, b"x" * body), limits=SMALL) == [(Kind.TABLE, b"x" * body)]
    with pytest.raises(ProtocolError, match="65 bytes is over the limit of 64"):
        read(pack_frame(Kind.TABLE, b"x" * (body + 1)), limits=SMALL)


def test_an_oversize_frame_is_refused_at_its_first_eight_bytes():
    with pytest.raises(ProtocolError, match="over the limit"):
        read(pack_frame(Kind.TABLE, b"x" * 100)[:8], limits=SMALL)


def test_a_frame_too_short_to_hold_its_own_head_is_refused():
    for length in range(4):
        with pytest.raises(ProtocolError):
            read(length.to_bytes(4, "big") + b"\1\2\0\0")


def test_another_version_of_the_protocol_is_named():
    frame = bytearray(pack_frame(Kind.HELLO, b""))
    frame[4] = 2
    with pytest.raises(ProtocolError, match="protocol version 2, this side has 1"):
        read(bytes(frame))


@pytest.mark.parametrize(
    ("sent", "speaks"),
    [
        (b"GET / HTTP/1.1", "HTTP"),
        (b"POST /x HTTP/1.1", "HTTP"),
        (b"DELETE /x HTTP/1.0", "HTTP"),
        (b"PRI * HTTP/2.0", "HTTP"),
        (b"HTTP/1.1 400 Bad Request", "HTTP"),
        (b"*1\r\n$4\r\nPING\r\n", "Redis"),
        (b"PING\r\nPING\r\n", "Redis"),
        (b"\x16\x03\x01\x02\0\x01\0\x01", "TLS"),
    ],
)
def test_a_stranger_is_known_by_what_it_begins_with(sent, speaks):
    with pytest.raises(ForeignProtocol, match=f"speaks {speaks}, not raymesh's") as caught:
        read(sent[:5], sent[5:])
    assert caught.value.speaks == speaks


def test_what_a_large_frame_has_so_far_is_not_copied_for_each_byte_that_follows():
    """3 MiB at once and then byte by byte: copying would cost the receiver a millisecond a byte."""
    reader = FrameReader()
    frame = pack_frame(Kind.REQUEST, b"x" * (3 << 20))
    assert reader.feed(frame[:-100]) == []
    begun = reader.unfinished
    for at in range(100, 1, -1):
        assert reader.feed(frame[-at : 1 - at]) == []
        assert reader.unfinished is begun
    assert reader.feed(frame[-1:]) == [(Kind.REQUEST, b"x" * (3 << 20))]
    assert reader.unfinished is None


def test_an_unfinished_frame_is_another_one_once_the_first_is_whole():
    reader = FrameReader()
    frame = pack_frame(Kind.REQUEST, b"x" * 100)
    reader.feed(frame[:50])
    begun = reader.unfinished
    assert len(reader.feed(frame[50:] + frame[:50])) == 1
    assert reader.unfinished is not begun


def test_a_reader_takes_larger_frames_once_it_is_told_to():
    reader = FrameReader(SMALL)
    reader.limit(1 << 20)
    assert reader.feed(pack_frame(Kind.REQUEST, b"x" * 1000)) == [(Kind.REQUEST, b"x" * 1000)]


def test_frames_before_a_broken_one_are_not_delivered_again():
    reader = FrameReader(SMALL)
    with pytest.raises(ProtocolError):
        reader.feed(pack_reply(1, 0, b"") + b"\xff" * 8)
    assert reader.feed(pack_reply(2, 0, b"")) == [(Kind.REPLY, pack_reply(2, 0, b"")[8:])]


def test_a_truncated_frame_is_not_delivered():
    frame = pack_request(REQUEST)
    for cut in range(len(frame)):
        assert read(frame[:cut]) == []


@pytest.mark.parametrize("size", [0, 1, 43])
def test_a_request_shorter_than_its_header_is_refused(size):
    with pytest.raises(ProtocolError, match="shorter than its header"):
        unpack_request(b"\0" * size)
    with pytest.raises(ProtocolError, match="shorter than its header"):
        unpack_reply(b"\0" * min(size, 8))


@pytest.mark.parametrize(
    "blob",
    [
        b"",
        b"\xc1",
        b"\x92\x01",
        msgpack.packb(1) + b"\0",
        msgpack.packb({1: 2}),
        msgpack.packb(msgpack.ExtType(1, b"x")),
        msgpack.packb(["x"] * 9),
        b"\xdd\xff\xff\xff\xff",
        b"\x91" * 10_000,
        b"\xa2\xff\xff",
    ],
    ids=[
        "empty",
        "no such byte",
        "cut",
        "trailing",
        "number as a name",
        "extension",
        "too many",
        "huge",
        "too deep",
        "no utf-8",
    ],
)
def test_a_malformed_envelope_is_refused(blob):
    with pytest.raises(ProtocolError, match="malformed message"):
        unpack_envelope(blob, Limits(envelope_elements=8))


def test_a_call_is_settled_by_its_status_below_16_only():
    assert [s for s in Status if s < 16] == [Status.OK, Status.ENTITY_ERROR, Status.RULED_OUT]
