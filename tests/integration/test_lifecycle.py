"""`mesh.local`, `mesh.up` and `mesh.down`: what is decided, and refused, before anything is started."""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
import textwrap
import threading
import typing
from pathlib import Path

import pytest

import mesh
from mesh import lifecycle, rundir
from mesh.config import MeshConfig
from mesh.testing.hosted import InProcessMesh


@mesh.entity
class Account:
    balance: int = 0

    @mesh.command
    def deposit(self, amount: int) -> int:
        self.balance += amount
        return self.balance


class Outer:
    @mesh.entity
    class Nested:
        n: int = 0


def test_up_takes_every_setting_of_the_command_line_with_its_type() -> None:
    asked = typing.get_type_hints(lifecycle.Settings)
    known = typing.get_type_hints(MeshConfig)
    # `app` is an argument of its own, `timeout` is of `mesh call`.
    assert asked == {name: kind for name, kind in known.items() if name not in ("app", "timeout")}


def test_a_setting_that_does_not_exist_is_named() -> None:
    with pytest.raises(TypeError, match="unexpected setting 'handler'; did you mean 'handlers'"):
        mesh.up([Account], handler=2)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"handlers": 0}, "handlers must be 1 to 1000, not 0"),
        ({"handlers": 9, "partitions": 8}, "9 handlers cannot share 8 partitions"),
        ({"name": "a/b"}, "mesh name 'a/b': use 1 to 64 letters"),
        ({"host": "0.0.0.0"}, "set a token"),
        ({"port": "7400"}, "port must be a whole number, not '7400'"),
        ({"ray": "nowhere"}, "write local, auto or HOST:PORT"),
    ],
)
def test_a_setting_out_of_its_bounds_is_refused_before_anything_starts(
    settings: dict[str, typing.Any], says: str
) -> None:
    with pytest.raises(mesh.SetupError, match=says):
        mesh.up([Account], **settings)


def test_what_is_no_entity_is_refused_before_anything_starts() -> None:
    for begin in (lambda: mesh.up([int]), lambda: mesh.local(int)):
        with pytest.raises(mesh.SetupError, match=r"int is not an entity; decorate it"):
            begin()


def test_a_ray_that_is_not_there_is_said_at_once_and_leaves_nothing(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    name = f"nowhere-{os.getpid()}"
    with pytest.raises(mesh.SetupError, match=f"{address}: no Ray was reached"):
        mesh.up(name=name, ray=address, port=0, data_dir=str(tmp_path / "data"))
    assert rundir.read(name) is None


def test_down_of_nothing_says_so() -> None:
    with pytest.raises(mesh.SetupError, match="no mesh named 'nobody' runs on this machine; there"):
        mesh.down("nobody")


def test_down_of_a_mesh_that_is_starting_says_so() -> None:
    name = f"starting-{os.getpid()}"
    held = rundir.RunDir.take(name)
    try:
        with pytest.raises(mesh.SetupError, match="is still starting; try again"):
            mesh.down(name)
    finally:
        held.remove()


def test_classes_that_can_be_imported_go_by_name_and_others_by_value() -> None:
    @mesh.entity
    class Inner:
        n: int = 0

    classes = (Account, Outer.Nested, Inner)
    app, carried = lifecycle._split(classes, shared_files=True)
    assert app == f"{__name__}:Account"
    assert carried == [Outer.Nested, Inner]
    # A cluster has other files than this machine.
    assert lifecycle._split((Account,), shared_files=False) == ("", [Account])


CARRY = """
    from __future__ import annotations

    import sys
    from dataclasses import dataclass
    from decimal import Decimal

    import mesh

    @dataclass
    class Money:
        amount: Decimal

    class Opaque:
        def __init__(self, x): self.x = x

    OPAQUE = mesh.TypeCodec(Opaque, encode=lambda o: o.x, decode=Opaque)

    def helper(n):
        return n * 2

    class Base:
        n: int = 1

        @mesh.query
        def get(self) -> int:
            return helper(self.n)

    @mesh.entity(name="Wallet", ttl=60, durability="fsynced", priority=7, codecs=[OPAQUE])
    class Purse(Base):
        last: Money | None = None
        odd: Opaque | None = None

        @mesh.command
        def put(self, amount: Decimal) -> Money:
            self.last, self.odd = Money(amount), Opaque(1)
            self.n += 1
            return self.last

    if __name__ == "__main__":
        from actors.carried import pack
        sys.stdout.buffer.write(pack([Purse]))
"""


@pytest.fixture
def blob(tmp_path: Path) -> bytes:
    """A class of a script, as another process gets it."""
    script = tmp_path / "purse.py"
    script.write_text(textwrap.dedent(CARRY))
    return subprocess.check_output([sys.executable, script], timeout=60)


async def test_a_carried_class_works_like_the_one_that_was_written(blob: bytes) -> None:
    from actors.carried import unpack

    [purse] = unpack(blob)
    spec = purse.__mesh_entity__
    assert (spec.name, spec.ttl_s, spec.durability, spec.priority) == ("Wallet", 60, "fsynced", 7)
    m = InProcessMesh((purse,), handlers=1, partitions=8, replaces=True, token="")
    async with m, m.connect() as client:
        assert await client.call(purse.get, "p") == 2
        assert (await client.call(purse.put, "p", 3)).amount == 3
        assert await client.call(purse.get, "p") == 4


def test_what_belongs_to_this_process_cannot_be_carried_and_is_named() -> None:
    from actors.carried import pack

    lock = threading.Lock()

    @mesh.entity
    class Locked:
        n: int = 0

        @mesh.command
        def up(self) -> bool:
            return lock.locked()

    with pytest.raises(mesh.SetupError, match=r"Locked .* cannot be carried .*_thread.lock"):
        pack([Locked])


def test_a_module_that_is_missing_elsewhere_is_named() -> None:
    from actors.carried import unpack

    blob = pickle.dumps(Path.__class__)  # any pickle: its module is put out of reach below
    with pytest.raises(mesh.SetupError, match="cannot be brought to life here: No module named"):
        unpack(blob.replace(b"builtins", b"builtinz"))


async def test_a_client_says_which_ray_it_asked_in_vain(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(mesh.Unavailable, match=f"RAY_ADDRESS={address} was not asked: .*no Ray"):
        await mesh.connect(mesh="nobody")
