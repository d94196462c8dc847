"""Up, down, and killed in between: what was started ends, and what was written stays."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from census import Process, assert_gone, family, naming, of_status, wait_for
from running import MESH

import mesh
from mesh import rundir

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(150)]

SECRET = "not-to-be-seen-in-a-list-of-processes"


class Own:
    """A mesh of the test's own, brought up by the command line."""

    def __init__(self, folder: Path) -> None:
        self.name = f"own-{os.getpid()}-{folder.name[-12:]}"
        self.data = folder / "data"
        self.run_dir = rundir._folder(self.name)
        self.seen: set[Process] = set()
        self._errors = (folder / "errors").open("w+")
        self._foreground: list[subprocess.Popen[str]] = []

    def command(self, *arguments: str) -> subprocess.Popen[str]:
        """`mesh up` with these arguments, going on beside the test."""
        options = ["--handlers", "2", "--partitions", "8", "--port", "0", "--no-dashboard"]
        process = subprocess.Popen(
            [MESH, "up", *self.named, *options, "--data-dir", self.data, *arguments],
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={**os.environ, "MESH_TOKEN": SECRET},
        )
        self._foreground.append(process)
        return process

    @property
    def named(self) -> list[str]:
        return ["--name", self.name]

    def up(self, *arguments: str) -> tuple[subprocess.Popen[str], dict[str, Any]]:
        """Start it; the command and the status that it printed when the mesh was ready."""
        process = self.command("--json", *arguments)
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, self.said()
        self.look()
        return process, json.loads(line)

    def down(self) -> None:
        """`mesh down`, in good order."""
        words = subprocess.check_output([MESH, "down", *self.named], text=True, timeout=60)
        assert words == f"mesh {self.name} is down; its data is kept\n"

    def call(self, *arguments: str, **environment: str) -> tuple[int, str]:
        """`mesh call`; its exit code and what it printed, on either stream."""
        done = subprocess.run(
            [MESH, "call", *self.named, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=30,
            check=False,
            env={**os.environ, **environment},
        )
        return done.returncode, done.stdout

    def said(self) -> str:
        self._errors.seek(0)
        return self._errors.read()

    def look(self) -> set[Process]:
        """Remember every process of it that is there."""
        state = rundir.read(self.name) or {}
        known = {p.pid for p in self.seen if p.is_alive} | {p.pid for p in self._foreground}
        known |= {p.pid for p in naming(self.data, self.run_dir)}
        self.seen |= family(*known, *([state["pid"]] if "pid" in state else []))
        return {p for p in self.seen if p.is_alive}

    def assert_gone(self) -> None:
        assert_gone(self.seen, self.data, self.run_dir)
        wait_for(lambda: rundir.read(self.name) is None)

    def end(self) -> None:
        for process in self._foreground:
            process.kill()
            process.communicate()
        for process in self.look():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        self._errors.close()
        rundir.sweep()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Own]:
    own = Own(tmp_path)
    yield own
    own.end()


def ports(status: dict[str, Any]) -> list[int]:
    rows = (*status["handlers"], *status["supervisors"], *status["store"]["nodes"])
    return [row["port"] for row in rows]


def listens(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


async def count_up(endpoint: str, *, to: int) -> None:
    async with await mesh.connect(endpoint, token=SECRET) as client:
        assert [await client.call("KV.incr", f"k{i}") for i in range(16)] == [to] * 16


async def test_down_leaves_nothing_but_the_data_and_up_goes_on_with_it(own: Own) -> None:
    command, status = own.up("--detach")
    assert command.wait(20) == 0
    assert status["store_life"] == 1
    assert of_status(status) <= {p.pid for p in own.look()}
    assert not [p for p in own.seen if SECRET in p.command]
    await count_up(status["endpoints"][0], to=1)
    # Who started it may call it from any shell; the secret lies where only this user reads.
    assert own.call("KV.get", "k0") == (0, "1\n")
    assert own.run_dir.stat().st_mode & 0o077 == 0
    code, said = own.call("KV.get", "k0", MESH_TOKEN="wrong")
    assert (code, said.startswith("mesh call: ")) == (1, True)
    assert "wrong token" in said

    own.down()
    own.assert_gone()
    assert not own.run_dir.exists()
    assert not [port for port in ports(status) if listens(port)]

    command, status = own.up("--detach")
    assert command.wait(20) == 0
    assert status["store_life"] == 2
    assert status["partitions"] == 8
    await count_up(status["endpoints"][0], to=2)

    # Nobody is left who could take it down in good order: its processes see to it themselves.
    state = rundir.read(own.name)
    assert state is not None
    os.kill(state["pid"], signal.SIGKILL)
    own.assert_gone()
    assert not [port for port in ports(status) if listens(port)]


async def test_calls_need_no_supervisor_and_a_killed_command_takes_everything_along(
    own: Own,
) -> None:
    command, status = own.up()
    handler = "{host}:{port}".format(**status["handlers"][0])
    async with await mesh.connect(handler, token=SECRET) as client:
        assert await client.call("KV.incr", "k") == 1
        for row in status["supervisors"]:
            os.kill(row["pid"], signal.SIGKILL)
        wait_for(lambda: not any(listens(row["port"]) for row in status["supervisors"]))
        assert [await client.call("KV.incr", "k") for _ in range(50)] == list(range(2, 52))
        async with await mesh.connect(handler, token=SECRET) as newcomer:
            assert await newcomer.call("KV.get", "k") == 51
    own.look()
    command.kill()
    own.assert_gone()


@pytest.mark.slow  # the moment at which most is under way is in the default suite, below
@pytest.mark.parametrize("moment", range(5))
def test_ctrl_c_at_any_moment_of_the_start_leaves_nothing(own: Own, moment: int) -> None:
    after_s = random.uniform(2 * moment, 2 * moment + 2)
    command = own.command()
    try:
        command.wait(after_s)
    except subprocess.TimeoutExpired:
        own.look()
        command.send_signal(signal.SIGINT)
    # 0: it was up by then, and was taken down as it should be. Before Python listens, the signal kills.
    assert command.wait(60) in (0, 130, -signal.SIGINT), own.said()
    assert "Traceback" not in own.said() or after_s < 1, (after_s, own.said())
    own.assert_gone()
    assert not own.run_dir.exists()


@pytest.mark.parametrize(
    "how",
    [
        signal.SIGINT,
        *(pytest.param(n, marks=pytest.mark.slow) for n in (signal.SIGTERM, signal.SIGHUP)),
    ],
)
def test_a_command_that_is_told_to_end_takes_everything_along(own: Own, how: int) -> None:
    command, status = own.up()
    command.send_signal(how)
    assert command.wait(60) == 0, own.said()
    assert "Traceback" not in own.said()
    own.assert_gone()
    assert not own.run_dir.exists()
    assert not [port for port in ports(status) if listens(port)]


def test_a_start_that_fails_halfway_leaves_nothing(own: Own) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        # Ray and the store are up before the supervisor asks for its port; until then it is free.
        port = taken.getsockname()[1]
        taken.close()
        command = own.command("--port", str(port))
        wait_for(lambda: "starting Ray" in own.said())
        with socket.create_server(("127.0.0.1", port)):
            own.look()
            assert command.wait(90) == 1
    assert f"cannot listen on 127.0.0.1:{port}" in own.said()
    assert "Traceback" not in own.said()
    own.assert_gone()
    assert not own.run_dir.exists()


def test_ctrl_c_while_store_and_ray_start_leaves_nothing(own: Own) -> None:
    command = own.command()
    # Both the store and Ray are on their way.
    wait_for(lambda: naming(own.data) - naming("mesh.cli") and naming(own.run_dir))
    own.look()
    command.send_signal(signal.SIGINT)
    assert command.wait(60) == 130
    assert "Traceback" not in own.said()
    own.assert_gone()
    assert not own.run_dir.exists()
