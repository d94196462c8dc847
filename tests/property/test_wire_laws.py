"""Frames survive any cutting of the stream, and no bytes break the reader."""

from hypothesis import given
from hypothesis import strategies as st

from mesh.core.messages import Message, unpack_message
from mesh.core.table import Table
from mesh.core.wire import FrameReader, Kind, Limits, Request, pack_request, unpack_request
from mesh.errors import ProtocolError

u8, u16, u32, u64 = (st.integers(0, 2**bits - 1) for bits in (8, 16, 32, 64))
requests = st.builds(
    Request, u64, u64, u64, u32, u32, u32, u32, u8, u8, st.binary(max_size=200), u16
)


@given(st.lists(requests, max_size=6), st.data())
def test_requests_arrive_whole_and_in_order_however_the_stream_is_cut(sent, data):
    stream = b"".join(map(pack_request, sent))
    reader, got = FrameReader(), []
    at = 0
    while at < len(stream):
        size = data.draw(st.integers(1, len(stream) - at), label="chunk")
        got += reader.feed(stream[at : at + size])
        at += size
    assert [unpack_request(body) for _, body in got] == sent
    assert all(kind == Kind.REQUEST for kind, _ in got)


@given(st.lists(st.binary(max_size=60), max_size=8))
def test_random_bytes_are_refused_or_kept_within_the_frame_limit(chunks):
    limits = Limits(frame_bytes=100)
    reader = FrameReader(limits)
    try:
        for chunk in chunks:
            for _, body in reader.feed(chunk):
                assert len(body) <= limits.frame_bytes
    except ProtocolError:
        pass


@given(st.binary(max_size=200))
def test_random_bytes_are_no_message_and_break_nothing(blob):
    for read in (unpack_message, Table.decode, Table.peek):
        try:
            value = read(blob)
        except ProtocolError:
            continue
        assert isinstance(value, Message | Table | tuple)
