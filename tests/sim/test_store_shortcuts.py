"""What the store model does faster in one process than a server can is the same as the long way."""

from __future__ import annotations

import random
from typing import Any

import msgpack
import pytest
from sim.store_rig import Rig, simulate

from mesh.testing.sim.store.lua import runtime
from mesh.testing.sim.store.replies import Reply

LIBRARY = b"""#!lua name=test
redis.register_function('again', function(_, args) return cmsgpack.pack(cmsgpack.unpack(args[1])) end)
redis.register_function('numbers', function(_, args)
  local high, low, behind = struct.unpack(args[1], args[2])
  return { high, low, behind }
end)
redis.register_function('shape', function(keys, args)
  return { #keys, #args, keys[1] or false, args[1] or false, keys[#keys] or false, args[#args] or false }
end)
"""


class Nobody:
    def command_from_function(self, args: tuple[bytes, ...]) -> Reply:
        raise AssertionError(args)


def called(name: bytes, *args: bytes, keys: tuple[bytes, ...] = ()) -> bytes:
    function = runtime().load(LIBRARY)[name]
    return bytes(runtime().call(Nobody(), function, list(keys), list(args)))


def drawn(dice: random.Random, depth: int = 0) -> Any:
    sizes = (0, 1, 15, 16, 31, 32, 255, 256, 70_000 if not depth else 300)
    match dice.randrange(9 if depth < 2 else 6):
        case 0:
            return dice.choice((0, 127, 128, 255, 256, 65_535, 65_536, 2**32 - 1, 2**32, 2**40))
        case 1:
            return -dice.choice((1, 32, 33, 128, 129, 40_000, 2**33))
        case 2 | 3:
            return dice.randbytes(dice.choice(sizes))
        case 4:
            return dice.choice((True, False))
        case 5:
            return dice.choice((1.5, -0.1))
        case 6:
            return {b"a": drawn(dice, depth + 1)}
    return [drawn(dice, depth + 1) for _ in range(dice.choice((1, 3, 15, 16, 40)))]


@pytest.mark.parametrize("seed", range(20))
def test_what_a_mesh_packs_a_function_unpacks(seed: int) -> None:
    dice = random.Random(seed)
    for _ in range(20):
        value = drawn(dice)
        blob = msgpack.packb(value, use_bin_type=False)
        packed = called(b"again", blob)
        head, _, rest = packed.partition(b"\r\n")
        assert head.startswith(b"$"), packed
        assert msgpack.unpackb(rest[:-2], raw=True) == value


def test_a_blob_that_is_cut_off_or_goes_on_is_refused() -> None:
    blob = msgpack.packb([1, 300, b"text" * 20, [b"x"] * 20, 70_000], use_bin_type=False)
    assert called(b"again", blob).startswith(b"$")
    for spoilt in (*(blob[:end] for end in range(len(blob))), blob + b"\0"):
        assert b"Bad data format" in called(b"again", spoilt), spoilt


@pytest.mark.parametrize(
    ("layout", "data", "numbers"),
    [
        (b">I4I4", b"\x01\x02\x03\x04\xff\xff\xff\xff", (0x1020304, 0xFFFFFFFF, 9)),
        (b">I2I2", b"\x01\x02\xff\xfe", (0x102, 0xFFFE, 5)),
        (b"<I2I2", b"\x01\x02\xff\xfe", (0x201, 0xFEFF, 5)),
    ],
)
def test_numbers_are_read_whatever_their_layout(layout, data, numbers) -> None:
    assert called(b"numbers", layout, data) == b"*3\r\n:%d\r\n:%d\r\n:%d\r\n" % numbers
    assert b"data string too short" in called(b"numbers", layout, data[:-1])


@pytest.mark.parametrize(("keys", "args"), [(0, 1), (1, 0), (3, 2), (2, 500), (500, 2)])
def test_a_function_gets_its_keys_and_arguments_however_many(keys: int, args: int) -> None:
    many_keys = tuple(b"k%03d" % i for i in range(keys))
    many_args = [b"a%03d" % i for i in range(args)]
    answer = called(b"shape", *many_args, keys=many_keys)
    assert answer.startswith(b"*6\r\n:%d\r\n:%d\r\n" % (keys, args))
    for text in (*many_keys[:1], *many_keys[-1:], *many_args[:1], *many_args[-1:]):
        assert text in answer


@pytest.mark.parametrize("chop", [0.0, 1.0], ids=["whole", "in two"])
def test_a_replica_has_what_it_was_sent_however_it_arrives(chop: float) -> None:
    async def main(rig: Rig) -> None:
        await rig.store()
        await rig.ask("db-0", "FUNCTION", "LOAD", LIBRARY)
        rig.sim.network.chop = chop
        for number in range(20):
            await rig.ask("db-0", "HSET", "h", f"f{number}", number)
            await rig.ask("db-0", "SET", "k", "v" * number)
            assert await rig.ask("db-0", "PUBLISH", "nobody", "listens") == 0
        await rig.until(lambda: len({n.server.stream.offset for n in rig.nodes.values()}) == 1)
        primary, *replicas = (node.server for node in rig.nodes.values())
        for server in replicas:
            assert server.data.dump() == primary.data.dump()
            assert server.stream.since(primary.stream.id, 0) in (
                None,
                primary.stream.since(primary.stream.id, 0),
            )

    simulate(main)
