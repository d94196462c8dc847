"""A store named by its Sentinels: its nodes are found through them, and what is wrong is said."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import replace

import pytest

from mesh.errors import SetupError
from mesh.store.address import Sentinels, StoreAddress
from mesh.store.api import StoreRefused, StoreUnreachable
from mesh.store.embedded import EmbeddedStore
from mesh.store.redis import RedisStore
from mesh.store.sentinel import check_quorum, find_nodes

MASTER = "default"
NODES = b"*2\r\n$1\r\nh\r\n$1\r\n1\r\n"


def asking(store: EmbeddedStore, **changed) -> StoreAddress:
    """The embedded store's address, by its Sentinels alone."""
    sentinels = replace(Sentinels(store.sentinels, MASTER), **changed)
    return replace(store.address, nodes=(), sentinels=sentinels)


def pids(store: EmbeddedStore, role: str) -> list[int]:
    children = store._sentinels if role == "sentinel" else store._nodes
    return [child.pid for child in children]


async def find(address: StoreAddress, within_s: float = 1.0):
    return await find_nodes(address, tls=None, within_s=within_s)


async def test_sentinels_name_every_node_the_primary_first(embedded):
    primary = next(n for n in await embedded.nodes() if n.role == "primary")
    nodes = await find(asking(embedded))
    assert nodes[0] == ("127.0.0.1", primary.port)
    assert sorted(nodes) == sorted(embedded.address.nodes)


async def test_a_mesh_is_served_through_a_url_that_names_sentinels(on_server, embedded):
    hosts = ",".join(f"{host}:{port}" for host, port in embedded.sentinels)
    url = f"redis+sentinel://{hosts}/{MASTER}"
    address = StoreAddress.from_url(url, on_server.address.mesh, embedded.address.password)
    store = on_server.another(address)
    await on_server.open()
    assert (await store.recorded()).life.number == on_server.life
    assert (await store.check_server()).run_id
    assert str(address) in repr(store)


async def test_one_sentinel_that_answers_is_enough(embedded, fake, unused_port):
    silent = await fake(SENTINEL=None, CLIENT=None, AUTH=None)
    nodes = (silent.node, ("127.0.0.1", unused_port), embedded.sentinels[0])
    async with asyncio.timeout(10):
        found = await find(asking(embedded, nodes=nodes), within_s=30.0)
    assert sorted(found) == sorted(embedded.address.nodes)


async def test_a_name_that_nobody_watches_is_told_with_those_that_are(embedded):
    store = RedisStore(asking(embedded, master="mymaster"))
    with pytest.raises(StoreRefused) as caught:
        await store.recorded()
    assert caught.value.code == "NOMASTER"
    assert "no Sentinel watches a master named 'mymaster'" in str(caught.value)
    assert "watches ['default']" in str(caught.value)
    await store.close()


async def test_sentinels_that_nobody_reaches_are_all_named(unused_port):
    nodes = (("127.0.0.1", unused_port), ("127.0.0.1", 1))
    store = RedisStore(StoreAddress((), sentinels=Sentinels(nodes, "m")))
    with pytest.raises(StoreUnreachable) as caught:
        await store.recorded()
    assert "no Sentinel of master 'm' answered" in str(caught.value)
    assert f"127.0.0.1:{unused_port}" in str(caught.value)
    assert "127.0.0.1:1" in str(caught.value)
    assert caught.value.executed is False
    await store.close()


async def test_a_data_node_in_the_place_of_a_sentinel_is_told_from_one(embedded):
    with pytest.raises(StoreRefused, match=r"is no Sentinel; .* named with redis://"):
        await find(asking(embedded, nodes=embedded.address.nodes[:1]))


async def test_sentinels_without_the_stores_password_ask_for_a_login_of_their_own(embedded):
    address = replace(asking(embedded), password=None)
    with pytest.raises(StoreRefused, match=r"name its own with .sentinel_username=") as caught:
        await find(address)
    assert caught.value.code == "NOAUTH"


async def test_sentinels_may_have_a_login_of_their_own(embedded):
    address = asking(embedded, password=embedded.address.password)
    assert await find(replace(address, username="somebody", password="else"))


async def test_a_wrong_password_of_their_own_is_not_tried_without_one(embedded):
    with pytest.raises(StoreRefused) as caught:
        await find(asking(embedded, password="wrong"))
    assert caught.value.code == "WRONGPASS"


async def test_sentinels_without_any_login_are_asked_without_one(fake):
    """They refuse the store's user, which they have never heard of."""
    server = await fake(AUTH=b"-WRONGPASS no such user\r\n", SENTINEL=NODES)
    address = StoreAddress(
        (), username="u", password="p", sentinels=Sentinels((server.node,), MASTER)
    )
    assert await find(address) == (("h", 1),)


async def test_a_sentinel_that_stays_silent_costs_the_limit_and_no_more(fake):
    server = await fake(SENTINEL=None)
    with pytest.raises(StoreUnreachable, match=r"no answer within 0.05 s|no reply within 0.05 s"):
        await find(StoreAddress((), sentinels=Sentinels((server.node,), MASTER)), within_s=0.05)


async def test_sentinels_that_are_enough_pass_the_check(embedded):
    await check_quorum(asking(embedded))


async def test_the_promoted_node_is_found_and_sentinels_too_few_are_refused(on_server, tmp_path):
    """A store of its own, since it does not survive this."""
    async with EmbeddedStore(tmp_path, down_after_ms=300, tilt_ms=3000) as embedded:
        address = asking(embedded)
        store = RedisStore(address)
        before = await store.links()
        dead = (await find(address))[0]
        os.kill(pids(embedded, "node")[embedded.address.nodes.index(dead)], signal.SIGKILL)

        async def promoted() -> bool:
            try:
                return await store.links() != before
            except (StoreUnreachable, StoreRefused):
                return False

        await on_server.until(promoted)
        await store.close()

        # Stopped and not killed: those that die are started again.
        stopped = pids(embedded, "sentinel")[:2]
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        assert dead in await find(address)

        async def refused() -> bool:
            try:
                await check_quorum(address)
            except SetupError as error:
                return "too few to fail over" in str(error) and "NOQUORUM" in str(error)
            return False

        try:
            await on_server.until(refused)
        finally:
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)
