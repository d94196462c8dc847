"""What only a store on a real server can get wrong: logins, refusals, broken connections, who is
primary.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from contextlib import suppress
from dataclasses import replace

import pytest

from mesh.core.records import Move, StoreStatus
from mesh.core.syncset import InSyncSet
from mesh.errors import SetupError
from mesh.store import library
from mesh.store.address import StoreAddress, TlsOptions
from mesh.store.api import StoreRefused, StoreUnreachable
from mesh.store.calls import Calls
from mesh.store.redis import RedisStore
from mesh.store.refusal import PERMISSIONS


async def refused(store: RedisStore, code: str) -> StoreRefused:
    with pytest.raises(StoreRefused) as caught:
        await store.recorded()
    assert caught.value.code == code
    assert caught.value.executed is False
    return caught.value


async def test_another_database_holds_another_mesh_of_the_same_name(on_redis):
    await on_redis.open()
    inside = on_redis.another(replace(on_redis.address, database=1))
    assert (await inside.recorded()).life is None
    reply = await inside.open_life(
        on_redis.opening((await on_redis.store.recorded()).life.sync_set, previous=0)
    )
    assert (reply.status, reply.acknowledged) == (StoreStatus.OK, True)


async def test_a_wrong_password_says_so_and_does_not_show_it(on_redis):
    store = on_redis.another(replace(on_redis.address, password="hunter2"))
    error = await refused(store, "WRONGPASS")
    assert not error.transient
    assert "hunter2" not in str(error) + repr(store)


async def test_no_password_says_what_to_do(on_redis):
    error = await refused(on_redis.another(replace(on_redis.address, password=None)), "NOAUTH")
    assert "password" in str(error)


async def test_a_user_with_the_permissions_that_the_message_names_is_enough(on_redis):
    await on_redis.administer("ACL", "SETUSER", "mesh", "reset", "on", ">pw", *PERMISSIONS.split())
    try:
        await on_redis.store.close()
        user = replace(on_redis.address, username="mesh", password="pw")
        on_redis.store = on_redis.another(user)
        await on_redis.store.check_server()
        await on_redis.store.ensure_functions()
        assert (await on_redis.open()).acknowledged
        grant = await on_redis.join(1)
        assert (
            await on_redis.store.commit(0, grant, 1, 1, [on_redis.entry(1, a=b"x")])
        ).acknowledged
        assert await on_redis.read(grant, 1, b"a") == [b"x"]
        assert (await on_redis.store.scan(grant, 1, on_redis.epoch(), 0)).pairs == ((b"a", b"x"),)
        assert await on_redis.store.renewals(1, [grant.nonce]) == {grant.nonce: 1}
        await on_redis.administer("PUBLISH", on_redis.address.prefix + b"nudge", "")
    finally:
        await on_redis.another().administer(b"*3\r\n$3\r\nACL\r\n$7\r\nDELUSER\r\n$4\r\nmesh\r\n")


async def test_a_user_who_may_not_write_writes_nothing_at_all(on_redis):
    await on_redis.open()
    grant = await on_redis.join(1)
    await on_redis.administer(
        "ACL", "SETUSER", "reader", "reset", "on", ">pw", "~*", "+@all", "-hset"
    )
    try:
        reader = on_redis.another(replace(on_redis.address, username="reader", password="pw"))
        with pytest.raises(StoreRefused) as caught:
            await reader.commit(0, grant, 1, 1, [on_redis.entry(1, a=b"x")])
        assert caught.value.code == "NOPERM"
        assert PERMISSIONS in str(caught.value)
    finally:
        await on_redis.administer("ACL", "DELUSER", "reader")
    reply = await on_redis.store.commit(0, grant, 1, 1, [])
    assert not reply.duplicate


@pytest.mark.parametrize("lacking", ["role", "wait", "hmget"])
async def test_a_user_who_could_never_acknowledge_is_told_so(on_redis, lacking):
    user = ("ACL", "SETUSER", "blind", "reset", "on", ">pw", "~*", "+@all", f"-{lacking}")
    await on_redis.administer(*user)
    try:
        address = replace(on_redis.address, username="blind", password="pw")
        await refused(on_redis.another(address), "NOPERM")
    finally:
        await on_redis.administer("ACL", "DELUSER", "blind")


async def test_a_server_without_the_functions_says_who_loads_them(on_redis):
    await on_redis.administer("FUNCTION", "DELETE", library.NAME)
    try:
        error = await refused(on_redis.store, "NOFUNCTION")
        assert error.transient
    finally:
        assert await on_redis.store.ensure_functions()
    await on_redis.store.recorded()


async def test_functions_are_loaded_where_they_differ_and_only_there(on_redis):
    assert not await on_redis.store.ensure_functions()
    await on_redis.administer(
        "FUNCTION", "LOAD", "REPLACE", library.source() + "-- another build\n"
    )
    assert await on_redis.store.ensure_functions()
    assert not await on_redis.store.ensure_functions()


@pytest.mark.parametrize(
    ("setting", "value", "code", "transient"),
    [
        ("maxmemory", "1mb", "OOM", False),
        ("min-replicas-to-write", "9", "NOREPLICAS", True),
    ],
)
async def test_a_server_that_takes_no_writes_has_written_nothing(
    on_redis, setting, value, code, transient
):
    await on_redis.open()
    grant = await on_redis.join(1)
    _, before = await on_redis.administer("CONFIG", "GET", setting)
    await on_redis.administer("CONFIG", "SET", setting, value)
    try:
        with pytest.raises(StoreRefused) as caught:
            await on_redis.store.commit(0, grant, 1, 1, [on_redis.entry(1, a=b"x")])
        assert (caught.value.code, caught.value.transient) == (code, transient)
        assert await on_redis.read(grant, 1, b"a") == [None]
    finally:
        await on_redis.administer("CONFIG", "SET", setting, before)
    reply = await on_redis.store.commit(0, grant, 1, 1, [on_redis.entry(1, a=b"x")])
    assert (reply.duplicate, reply.acknowledged) == (False, True)


@pytest.mark.parametrize(
    ("said", "code", "transient"),
    [
        (b"-LOADING server is loading the dataset in memory\r\n", "LOADING", True),
        (b"-BUSY server is busy running a script.\r\n", "BUSY", True),
        (b"-MISCONF Errors writing to the AOF file\r\n", "MISCONF", False),
        (b"-READONLY You can't write against a read only replica.\r\n", "READONLY", True),
        (b"-MOVED 3999 10.0.0.1:6381\r\n", "MOVED", False),
        (b"-ERR something new\r\n", "ERR", False),
    ],
)
async def test_each_refusal_has_its_code_and_advice(fake, said, code, transient):
    server = await fake(FCALL=said)
    store = RedisStore(StoreAddress((server.node,)))
    error = await refused(store, code)
    assert error.transient == transient
    assert f"{server.host}:{server.port}" in str(error)
    await store.close()


@pytest.mark.parametrize(
    "said",
    [
        b"-READONLY You can't write against a read only replica.\r\n",
        b"-NOREPLICAS Not enough good replicas to write.\r\n",
    ],
)
async def test_after_such_a_refusal_the_next_call_looks_for_the_primary(fake, said):
    """A primary whose replicas have left it may be one that was left behind."""
    was = await fake(FCALL=said)
    other = await fake(ROLE=fake.REPLICA, FCALL=b"-ERR the new one\r\n")
    store = RedisStore(StoreAddress((was.node, other.node)))
    await refused(store, said[1:].split()[0].decode())
    was.replies[b"ROLE"], other.replies[b"ROLE"] = fake.REPLICA, was.replies[b"ROLE"]
    assert "the new one" in str(await refused(store, "ERR"))
    await store.close()


async def test_two_primaries_are_refused(fake):
    one, two = await fake(), await fake()
    store = RedisStore(StoreAddress((one.node, two.node)))
    error = await refused(store, "SPLIT")
    for server in (one, two):
        assert f"{server.host}:{server.port} is a primary" in str(error)
    await store.close()


async def test_a_silent_node_does_not_hold_up_the_others(fake, on_redis):
    silent = await fake(ROLE=None, CLIENT=None, AUTH=None)
    nodes = (silent.node, *on_redis.address.nodes)
    store = on_redis.another(replace(on_redis.address, nodes=nodes), connect_timeout_s=30.0)
    async with asyncio.timeout(10):
        await store.recorded()


async def test_replicas_alone_are_no_store(fake):
    server = await fake(ROLE=fake.REPLICA)
    store = RedisStore(StoreAddress((server.node,)))
    with pytest.raises(SetupError, match=rf"{server.port} is a replica.*name the primary"):
        await store.check_server()
    with pytest.raises(StoreUnreachable) as caught:
        await store.recorded()
    assert caught.value.executed is False
    await store.close()


def info(**fields: str) -> bytes:
    text = "".join(f"{name}:{value}\r\n" for name, value in fields.items()).encode()
    return b"$%d\r\n%b\r\n" % (len(text), text)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (info(redis_version="6.2.14", run_id="a"), "redis 6.2.14.*needs Redis 7.0"),
        (info(redis_version="5.0", run_id="a"), "redis 5.0"),
        (info(redis_version="7.2.4", redis_mode="cluster", run_id="a"), "mode 'cluster'"),
        (info(redis_version="7.2.4", redis_mode="sentinel", run_id="a"), "mode 'sentinel'"),
    ],
)
async def test_a_server_that_will_not_do_says_why(fake, said, message):
    server = await fake(INFO=said)
    store = RedisStore(StoreAddress((server.node,)))
    with pytest.raises(SetupError, match=message):
        await store.check_server()
    await store.close()


async def test_a_fit_server_tells_what_it_is(on_redis):
    found = await on_redis.store.check_server()
    assert found.product in ("redis", "valkey")
    assert found.version >= (7, 0)
    assert found.run_id == (await on_redis.store.recorded()).run_id
    assert found.aof
    assert found.eviction == "noeviction"


async def test_a_call_whose_connection_breaks_may_have_been_carried_out(fake):
    server = await fake(FCALL=b"")
    store = RedisStore(StoreAddress((server.node,)))
    with pytest.raises(StoreUnreachable, match="closed by the server") as caught:
        await store.recorded()
    assert caught.value.executed is None
    await store.close()


async def test_a_call_that_gets_no_reply_ends_and_takes_its_connection_along(fake):
    server = await fake(FCALL=None)
    store = RedisStore(StoreAddress((server.node,)), wait_timeout_s=0.01, call_timeout_s=0.05)
    with pytest.raises(StoreUnreachable, match=r"no reply within 0\.05 s") as caught:
        await store.recorded()
    assert caught.value.executed is None
    server.replies[b"FCALL"] = b"-ERR on a new connection\r\n"
    await refused(store, "ERR")
    await store.close()


async def test_calls_under_way_end_together_when_the_connection_breaks(fake):
    server = await fake(FCALL=None)
    store = RedisStore(StoreAddress((server.node,)))
    calls = [asyncio.create_task(store.recorded()) for _ in range(3)]
    await asyncio.sleep(0.05)
    await store.close()
    for call in calls:
        with pytest.raises(StoreUnreachable) as caught:
            await call
        assert caught.value.executed is None


async def test_a_killed_connection_is_opened_again_by_the_next_call_of_its_lane(on_redis):
    await on_redis.open()
    grant = await on_redis.join(1)
    await on_redis.store.commit(0, grant, 1, 1, [on_redis.entry(1, a=b"1")])
    await on_redis.store.commit(1, grant, 1, 1, [])
    killer = on_redis.another()
    await killer.administer(b"*4\r\n$6\r\nCLIENT\r\n$4\r\nKILL\r\n$4\r\nTYPE\r\n$6\r\nnormal\r\n")
    for lane in (0, 1):
        reply = None
        async with asyncio.timeout(10):
            while reply is None:
                with suppress(StoreUnreachable):
                    reply = await on_redis.store.commit(lane, grant, 2, 2, [])
        assert reply.acknowledged


async def test_nobody_listening_is_unreachable_and_nothing_was_sent(unused_port):
    store = RedisStore(StoreAddress((("127.0.0.1", unused_port),)))
    with pytest.raises(StoreUnreachable, match=str(unused_port)) as caught:
        await store.recorded()
    assert caught.value.executed is False
    await store.close()


async def test_a_closed_store_sends_nothing_more(on_redis):
    await on_redis.open()
    await on_redis.store.close()
    with pytest.raises(StoreUnreachable, match="closed here") as caught:
        await on_redis.store.recorded()
    assert caught.value.executed is False


async def test_a_peer_that_is_no_redis_server_is_unreachable(fake):
    server = await fake(CLIENT=b"HTTP/1.1 400 Bad Request\r\n\r\n")
    store = RedisStore(StoreAddress((server.node,)))
    with pytest.raises(StoreUnreachable, match="not a RESP reply"):
        await store.recorded()
    await store.close()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """(certificate, key) of "localhost", its own authority."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("makes a certificate with openssl")
    folder = tmp_path_factory.mktemp("tls")
    subject = ("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1")
    new = ("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    files = ("-keyout", folder / "key.pem", "-out", folder / "cert.pem")
    subprocess.run([openssl, *new, *subject, *files], check=True, capture_output=True)
    return str(folder / "cert.pem"), str(folder / "key.pem")


async def test_tls_checks_who_the_server_is(fake, certificate):
    server = await fake(FCALL=b"-ERR reached\r\n", tls=certificate)
    known = StoreAddress((server.node,), tls=TlsOptions(ca_file=certificate[0]))
    store = RedisStore(known)
    assert "reached" in str(await refused(store, "ERR"))
    await store.close()
    stranger = RedisStore(StoreAddress((server.node,), tls=TlsOptions()))
    with pytest.raises(StoreUnreachable, match="certificate") as caught:
        await stranger.recorded()
    assert caught.value.executed is False
    await stranger.close()
    unverified = RedisStore(StoreAddress((server.node,), tls=TlsOptions(verify="none")))
    assert "reached" in str(await refused(unverified, "ERR"))
    await unverified.close()


async def test_a_cancelled_call_does_not_shift_later_replies(on_redis):
    await on_redis.open()
    await on_redis.store.recorded()
    for _ in range(20):
        call = asyncio.create_task(on_redis.store.links())
        await asyncio.sleep(0)
        call.cancel()
        assert (await on_redis.store.recorded()).life.number == 1
        with pytest.raises(asyncio.CancelledError):
            await call


async def test_a_repetition_waits_for_the_replicas_on_a_new_connection_too(on_redis):
    # WAIT covers what its own connection wrote; one that wrote nothing gets every replica at once.
    opening = on_redis.opening(InSyncSet(1, frozenset(await on_redis.store.links())))
    await on_redis.store.open_life(opening)
    on_redis.life = on_redis.token = 1
    takeover = on_redis.call()
    grant = await on_redis.join(1)
    batch = [on_redis.entry(1, a=b"x")]
    await on_redis.store.commit(0, grant, 1, 1, batch)

    async def repeated(call: str, *arguments: object) -> None:
        link, _ = await on_redis.store.links()
        store = on_redis.another(wait_timeout_s=10.0, call_timeout_s=20.0)
        await store.recorded()
        await on_redis.pause(link)
        asyncio.get_running_loop().call_later(0.1, on_redis.go_on, link)
        reply = await getattr(store, call)(*arguments)
        assert (reply.status, reply.acknowledged) == (StoreStatus.OK, True)

    await repeated("commit", 0, grant, 1, 1, batch)
    await on_redis.store.takeover(takeover)
    await repeated("takeover", takeover)
    again = replace(opening, operation=b"again", previous=1, number=2, token=2)
    await on_redis.store.open_life(again)
    await repeated("open_life", again)


async def test_a_grant_recorded_while_a_call_was_under_way_is_not_overlooked(on_redis):
    # "Nobody holds it" is said of the grants that the caller has declared: it must know all of them.
    await on_redis.open()
    holder, heir = await on_redis.join(1), await on_redis.join()
    calls = Calls(on_redis.address.prefix)
    move = Move(1, None, 0, heir.nonce, on_redis.epoch(2))
    reply = await on_redis.store.administer(calls.takeover(on_redis.call(move), ()))
    assert reply[0] == b"conflict"
    assert holder.nonce.hex() in reply[1].decode()
    opening = on_redis.opening(InSyncSet(1, frozenset()))
    reply = await on_redis.store.administer(calls.open_life(opening, (heir.nonce,)))
    assert reply[0] == b"conflict"
    assert (await on_redis.store.recorded()).life.number == 1


async def test_two_busy_lanes_are_acknowledged_at_the_first_try(on_redis):
    # Arguments of 32 KiB or more would let one client's writes in between another's FCALL and ROLE.
    await on_redis.open()
    store = on_redis.another(wait_timeout_s=1.0)
    grants = [await on_redis.join(p) for p in (1, 2)]
    short = 0

    async def lane(number: int) -> None:
        nonlocal short
        for seq in range(1, 40):
            entry = on_redis.entry(number + 1, **{f"f{i}": b"x" * 500 for i in range(200)})
            reply = await store.commit(number, grants[number], seq, seq, [entry])
            assert reply.status is StoreStatus.OK
            short += not reply.acknowledged

    await asyncio.gather(lane(0), lane(1))
    assert short <= 2


async def test_what_is_recorded_is_typed_plainly_in_the_store(on_redis):
    # Operators look at these keys; another version of the mesh reads them.
    await on_redis.open()
    grant = await on_redis.join(1)
    await on_redis.store.commit(0, grant, 1, 5, [on_redis.entry(1, a=b"x")])
    prefix = on_redis.address.prefix.decode()
    assert prefix.endswith("/0}:")
    key = f"{prefix}grant:{grant.nonce.hex()}"
    flat = await on_redis.administer("HGETALL", key)
    held = dict(zip(flat[::2], flat[1::2], strict=True))
    assert held[b"s"] == b"active"
    assert (held[b"l"], held[b"v"], held[b"q0"], held[b"q1"]) == (b"1", b"1", b"1", b"0")
    assert held[b"r"] == (5).to_bytes(8, "big")
    epochs = bytes(4) + on_redis.epoch().to_bytes(4, "big") + bytes(4 * 6)
    assert held[b"e"] == epochs
    assert await on_redis.administer("HGET", f"{prefix}life", "partitions") == b"8"
    assert await on_redis.administer("HGETALL", f"{prefix}p:1") == [b"a", b"x"]
