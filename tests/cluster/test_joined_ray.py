"""A mesh in a Ray that was there before: it is used, never stopped, and left as it was found."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from census import Process, assert_gone, family, wait_for

import mesh
from mesh import rundir
from mesh.store.embedded import EmbeddedStore

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(150)]

# A cluster of somebody else's, which asks for its token as Ray's own do.
HEAD = """
import logging, sys, ray
context = ray.init(
    num_cpus=1, include_dashboard=False, _temp_dir=sys.argv[1], _node_ip_address="127.0.0.1",
    object_store_memory=100 * 1024 * 1024, logging_level=logging.ERROR, log_to_driver=False,
)
print(context.address_info["gcs_address"], flush=True)
sys.stdin.read()
"""
# In a process of its own: this one has no Ray and is to stay without.
LOOK = """
import json, logging, sys, ray
from ray.util import list_named_actors
ray.init(address=sys.argv[1], log_to_driver=False, logging_level=logging.ERROR, configure_logging=False)
print(json.dumps(sorted(a["name"] for a in list_named_actors(all_namespaces=True))))
"""


FIND = """
import sys, mesh
with mesh.Client(mesh=sys.argv[1]) as client:
    print(client.call("Account.deposit", "alice", 0) + 2, end=" ")
try:
    mesh.Client(mesh="nobody")
except mesh.Unavailable as error:
    print(str(error)[:57])
"""


@mesh.entity
class Account:
    balance: int = 0

    @mesh.command
    def deposit(self, amount: int) -> int:
        self.balance += amount
        return self.balance


class Head:
    """A running Ray that no mesh has started."""

    def __init__(self, address: str, process: subprocess.Popen[str]) -> None:
        self.address = address
        self.processes = family(process.pid)

    def actors(self) -> list[str]:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", LOOK, self.address],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return list(json.loads(done.stdout.splitlines()[-1]))

    def assert_unharmed(self) -> None:
        assert not [p.command for p in self.processes if not p.is_alive and "raylet" in p.command]
        assert all(p.is_alive for p in self.core)

    @property
    def core(self) -> list[Process]:
        return [
            p for p in self.processes if "gcs_server" in p.command or "raylet/raylet" in p.command
        ]


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    os.environ["RAY_AUTH_MODE"] = "token"
    folder = Path("/tmp") / f"rm-head-{os.getpid()}"  # sockets lie below it: it has to be short
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", HEAD, folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        address = process.stdout.readline().strip()
        head = Head(address, process)
        assert len(head.core) == 2, [p.command[:80] for p in head.processes]
        yield head
        process.stdin.close()
        process.wait(30)
    del os.environ["RAY_AUTH_MODE"]
    subprocess.run(["rm", "-rf", folder], check=True)


@pytest.fixture
def name(tmp_path: Path) -> Iterator[str]:
    name = f"joined-{os.getpid()}-{tmp_path.name[-8:]}"
    yield name
    state = rundir.read(name)
    if state and "pid" in state:
        os.kill(state["pid"], signal.SIGKILL)
    rundir.sweep()


def options(head: Head, name: str, folder: Path) -> dict[str, Any]:
    return {
        "name": name,
        "handlers": 2,
        "partitions": 8,
        "port": 0,
        "ray": head.address,
        "data_dir": str(folder / "data"),
    }


ACTORS = ["handler h-0", "handler h-1", "supervisor s-0", "supervisor s-1", "warden w-0"]


def test_up_and_down_leave_the_ray_as_it_was(head: Head, name: str, tmp_path: Path) -> None:
    m = mesh.up([Account], **options(head, name, tmp_path))
    assert head.actors() == ACTORS
    with m.client() as client:
        assert client.call(Account.deposit, "alice", 5) == 5

    # Clients that are given nothing, on a machine (here: with a run folder) that knows of no mesh.
    (tmp_path / "elsewhere").mkdir()
    for code, environment in (
        (FIND, {"RAY_ADDRESS": head.address}),
        (f"import ray; ray.init({head.address!r}, log_to_driver=False)\n{FIND}", {}),
    ):
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code, name],
            env={**os.environ, "TMPDIR": str(tmp_path / "elsewhere"), **environment},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.stdout == "7 no mesh named 'nobody' runs on this machine or in the Ray\n", done

    with pytest.raises(mesh.SetupError, match=f"a mesh named '{name}' runs already"):
        mesh.up([Account], **options(head, name, tmp_path))
    assert m.status()["ready"] is True

    processes = {p["pid"] for p in (*m.status()["handlers"], *m.status()["supervisors"])}
    seen = {p for p in family(*processes) if p.pid in processes}
    mesh.down(name)
    assert_gone(seen, tmp_path / "data")
    assert head.actors() == []
    head.assert_unharmed()
    with pytest.raises(mesh.SetupError, match="there is nothing to end"):
        mesh.down(name)


@pytest.mark.slow
def test_a_killed_owner_takes_its_actors_along_and_not_the_ray(
    head: Head, name: str, tmp_path: Path
) -> None:
    m = mesh.up([Account], detach=False, **options(head, name, tmp_path))
    rows = (*m.status()["handlers"], *m.status()["supervisors"], *m.status()["wardens"])
    pids = {row["pid"] for row in rows}
    actors = {p for p in family(*pids) if p.pid in pids}
    assert len(actors) == 5
    # A replacement has another creator than the others, and ends all the same.
    replaced = {row["pid"] for row in m.status()["handlers"] if row["id"] == "h-0"}
    os.kill(replaced.pop(), signal.SIGKILL)
    wait_for(lambda: m.status()["ready"])
    rows = m.status()["handlers"]
    actors |= {
        p for p in family(*(row["pid"] for row in rows)) if p.pid in {r["pid"] for r in rows}
    }

    m._launched.process.kill()
    m._launched.process.wait()
    assert_gone(actors, tmp_path / "data")
    assert head.actors() == []
    head.assert_unharmed()


async def test_a_detached_mesh_on_a_store_of_its_own_outlives_its_owner_and_ends_by_name(
    head: Head, name: str, tmp_path: Path
) -> None:
    async with EmbeddedStore(tmp_path / "store", mesh=name, partitions=8) as store:
        address = ",".join(f"{host}:{port}" for host, port in store.address.nodes)
        said: list[str] = []
        m = mesh.up(
            [Account],
            store=f"redis://{address}",
            store_password=store.address.password,
            progress=said.append,
            **options(head, name, tmp_path),
        )
        assert len([line for line in said if "no failover of its own" in line]) == 1
        shown = m.status()["store"]
        assert (shown["kind"], shown["failover"], len(shown["in_sync"])) == ("external", "none", 2)
        os.kill(rundir.read(name)["pid"], signal.SIGKILL)
        m._launched.process.wait()
        wait_for(lambda: rundir.read(name) is None)
        async with await mesh.connect(m.endpoint) as client:
            assert await client.call(Account.deposit, "alice", 5) == 5
        with pytest.raises(mesh.SetupError, match=f"mesh down --name {name} --ray"):
            mesh.up([Account], **{**options(head, name, tmp_path), "data_dir": str(tmp_path / "2")})
        assert head.actors() == ACTORS
        with pytest.raises(mesh.SetupError, match="on this machine; there is nothing"):
            mesh.down(name)
        # Its leader starts another one in its place while everybody is ended.
        os.kill(m.status()["handlers"][0]["pid"], signal.SIGKILL)
        mesh.down(name, ray=head.address)
        assert head.actors() == []
        with pytest.raises(mesh.SetupError, match="there is nothing to end"):
            mesh.down(name, ray=head.address)
    head.assert_unharmed()
