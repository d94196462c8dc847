"""`mesh.local`: everything on this machine for a block, wherever the classes are from and however it ends."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import tempfile
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pytest
from census import Process, assert_gone, family, naming, wait_for

import mesh

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(150)]

SCRIPT = """
    from __future__ import annotations

    import enum
    import sys
    from dataclasses import dataclass

    import mesh

    FACTOR = 2

    class Color(enum.Enum):
        RED = 1

    @dataclass
    class Coin:
        value: int
        color: Color = Color.RED

    def doubled(value: int) -> int:
        return FACTOR * value

    @mesh.entity
    class Purse:
        coins: list[Coin] = []

        @mesh.command
        def put(self, value: int) -> int:
            self.coins.append(Coin(doubled(value)))
            return len(self.coins)

        @mesh.query
        def last(self) -> Coin | None:
            return self.coins[-1] if self.coins else None

    if __name__ == "__main__":
        with mesh.local(Purse, handlers=2) as m, m.client() as client:
            client.call(Purse.put, "p", 3)
            print(client.call(Purse.last, "p"), flush=True)
            if "wait" in sys.argv:
                print(m.status()["log"], *(h["pid"] for h in m.status()["handlers"]), flush=True)
                sys.stdin.read()
"""


@dataclass
class Coin:
    value: int


@mesh.entity
class Purse:
    coins: list[Coin] = []  # noqa: RUF012 - copied by the mesh

    @mesh.command
    def put(self, value: int) -> int:
        self.coins.append(Coin(value))
        return len(self.coins)

    @mesh.query
    def last(self) -> Coin | None:
        return self.coins[-1] if self.coins else None


def leftovers(pid: int = os.getpid()) -> list[Path]:
    """Folders of that process's local meshes."""
    return list(Path(tempfile.gettempdir()).glob(f"raymesh-local-{pid}-*"))


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "purse.py"
    path.write_text(textwrap.dedent(SCRIPT))
    return path


# What a script defines is served in the tests of killed scripts below, too.
@pytest.mark.parametrize("by", [pytest.param("script", marks=pytest.mark.slow), "input"])
def test_classes_of_a_script_and_of_standard_input_are_served(by: str, script: Path) -> None:
    with subprocess.Popen(
        [sys.executable, script if by == "script" else "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tempfile.gettempdir(),
        text=True,
    ) as process:
        said = process.communicate(None if by == "script" else script.read_text(), timeout=90)
    assert said == ("Coin(value=6, color=<Color.RED: 1>)\n", "")
    assert leftovers(process.pid) == []


async def test_a_local_mesh_in_async_code_survives_a_kill_and_leaves_nothing() -> None:
    async with mesh.local(Purse, handlers=2) as m:
        client, blocking = await m.connect(), await asyncio.to_thread(m.client)
        assert await client.call(Purse.put, "p", 1) == 1
        status = m.status()
        assert status == await status
        assert [h["state"] for h in status["handlers"]] == ["alive", "alive"]
        assert m.endpoint in status["endpoints"]
        folder = Path(status["log"]).parent
        seen = family(m._launched.process.pid) | naming(folder)
        pid = m.kill("h-0")
        assert await client.call(Purse.put, "p", 2) == 2
        assert await client.call(Purse.last, "p") == Coin(2)
        assert pid in {p.pid for p in seen}
        with pytest.raises(mesh.BadRequest, match="no handler 'h-9' lives"):
            m.kill("h-9")
    assert_gone(seen, folder)
    assert not folder.exists()
    for closed in (client, blocking):
        assert "closed" in repr(closed)


async def test_classes_of_a_function_are_served_and_an_error_in_the_block_leaves_nothing() -> None:
    @mesh.entity
    class Inner:
        n: int = 0

        @mesh.command
        def up(self) -> int:
            self.n += 1
            return self.n

    seen: set[Process] = set()

    async def fail() -> None:
        async with mesh.local(Inner, handlers=1) as m, m.connect() as client:
            assert await client.call(Inner.up, "k") == 1
            seen.update(family(m._launched.process.pid))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert_gone(seen)
    assert leftovers() == []


@pytest.mark.slow
def test_two_local_meshes_run_side_by_side() -> None:
    with mesh.local(handlers=1) as one, mesh.local(handlers=1) as two:
        with one.client() as first, two.client() as second:
            assert first.call(mesh.KV.incr, "k") == 1
            assert second.call(mesh.KV.get, "k") is None
        assert one.name != two.name
    assert leftovers() == []


def test_a_killed_script_leaves_nothing(script: Path) -> None:
    with subprocess.Popen(
        [sys.executable, script, "wait"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline().startswith("Coin")
        log, *_ = process.stdout.readline().split()
        seen = family(process.pid) | naming(Path(log).parent)
        process.kill()
        process.wait()
        assert_gone(seen, Path(log).parent)
        wait_for(lambda: not leftovers(process.pid))


@pytest.mark.slow
def test_a_killed_script_and_owner_leave_nothing(script: Path) -> None:
    with subprocess.Popen(
        [sys.executable, script, "wait"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline().startswith("Coin")
        log, *_ = process.stdout.readline().split()
        seen = family(process.pid) | naming(Path(log).parent)
        [owner] = [p for p in seen if "mesh.owner" in p.command]
        process.kill()
        os.kill(owner.pid, signal.SIGKILL)
        process.wait()
        assert_gone(seen, Path(log).parent)
        wait_for(lambda: not leftovers(process.pid))


@pytest.mark.parametrize("moment", [1, *(pytest.param(n, marks=pytest.mark.slow) for n in (0, 2))])
async def test_a_cancelled_start_leaves_nothing(moment: int) -> None:
    async def start() -> None:
        async with mesh.local(Purse, handlers=1):
            await asyncio.sleep(60)

    before = family(os.getpid())
    starting = asyncio.create_task(start())
    await asyncio.sleep(
        random.uniform(3 * moment, 3 * moment + 3)
    )  # at any moment: that is the claim
    seen = family(os.getpid()) - before
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert_gone(seen)
    assert leftovers() == []


def test_what_cannot_be_carried_says_so_and_leaves_nothing() -> None:
    import threading

    lock = threading.Lock()

    @mesh.entity
    class Locked:
        n: int = 0

        @mesh.command
        def up(self) -> int:
            with lock:
                self.n += 1
                return self.n

    with pytest.raises(mesh.SetupError, match=r"entity .*Locked .* cannot be carried .*lock"):
        with mesh.local(Locked):
            pass
    assert leftovers() == []
