"""Keys as users of either client and of the command line delete, ask after and list them."""

from __future__ import annotations

import asyncio
import json
import tempfile

import pytest
from mesh_in_process import PARTITIONS, InProcess
from mesh_in_thread import mesh_in_thread

import mesh
from mesh import rundir
from mesh.cli import main
from mesh.core.keyspace import partition_of
from mesh.errors import BadRequest, Unavailable

COUNT = 200
RAW = b"\xff\x00raw"


@mesh.entity
class Account:
    balance: int = 0

    @mesh.command
    def deposit(self, amount: int) -> int:
        self.balance += amount
        return self.balance

    @mesh.query
    def read(self) -> int:
        return self.balance


@mesh.entity(ttl=0.2)
class Token:
    uses: int = 0

    @mesh.command
    def use(self) -> int:
        self.uses += 1
        return self.uses


@pytest.fixture
async def meshed():
    async with InProcess(2, app=[Account, Token], replaces=False) as running:
        yield running


@pytest.fixture
async def client(meshed):
    return await meshed.connect()


async def fill(client, *more):
    keys = [f"k{n}" for n in range(COUNT)]
    await asyncio.gather(*(client.call(Account.deposit, key, 1) for key in (*keys, *more)))
    return keys


async def test_a_key_is_there_from_its_first_change_until_it_is_deleted(client):
    assert await client.exists(Account, "alice") is False
    assert await client.delete(Account, "alice") is False
    await client.call(Account.deposit, "alice", 5)
    assert await client.exists(Account, "alice") is True
    assert await client.exists("Account", b"alice") is True
    assert await client.delete("Account", "alice") is True
    assert await client.exists(Account, "alice") is False
    assert await client.call(Account.read, "alice") == 0


async def test_a_deletion_has_the_options_of_a_call(client):
    await client.call(Account.deposit, "alice", 5)
    options = {"idempotency_key": "gone", "metadata": {"why": "test"}, "priority": 9, "timeout": 5}
    assert await client.delete(Account, "alice", **options) is True
    await client.call(Account.deposit, "alice", 7)
    assert await client.delete(Account, "alice", **options) is True, "as it was told before"
    assert await client.call(Account.read, "alice") == 7
    with pytest.raises(mesh.IdempotencyConflict):
        await client.call(Account.deposit, "alice", 1, idempotency_key="gone")
    with pytest.raises(BadRequest, match="timeout must be above 0"):
        await client.delete(Account, "alice", timeout=0)


async def test_all_keys_are_listed_page_by_page(client):
    keys = await fill(client, RAW)
    found: list[str | bytes] = []
    cursor, pages = "", 0
    while pages == 0 or cursor:
        page = await client.keys(Account, cursor=cursor, limit=17)
        assert len(page.keys) <= 17
        found += page.keys
        cursor, pages = page.cursor, pages + 1
    assert sorted(map(str, found)) == sorted(map(str, (*keys, RAW)))
    assert RAW in found, "as bytes, since it is no UTF-8"
    assert pages == -(-(COUNT + 1) // 17), "each as full as it may be"


async def test_a_listing_is_of_one_entity_and_prefix(client):
    keys = await fill(client)
    await client.call(mesh.KV.put, "k1", 1)
    assert (await client.keys(mesh.KV)).keys == ["k1"]
    page = await client.keys("Account", prefix="k1")
    assert (sorted(page.keys), page.cursor) == (sorted(k for k in keys if k[:2] == "k1"), "")
    assert (await client.keys(Account, prefix=b"none")).keys == []


async def test_a_listing_goes_on_while_its_handlers_die(meshed, client):
    keys = await fill(client)
    page = await client.keys(Account, limit=COUNT // 4)
    found = set(page.keys)
    await meshed.kill("h-0")
    while page.cursor:
        page = await client.keys(Account, limit=COUNT // 4, cursor=page.cursor)
        found |= set(page.keys)
    assert found == set(keys)


async def test_keys_can_be_gone_through_one_by_one(client):
    keys = await fill(client)
    assert sorted([key async for key in client.iterate_keys(Account)]) == sorted(keys)


async def test_a_page_ends_with_what_it_has_when_half_its_time_is_over(client, monkeypatch):
    keys = await fill(client)
    ticks = iter(range(1000))
    monkeypatch.setattr(client, "_time", lambda: float(next(ticks)))
    page = await client.keys(Account, timeout=10)
    assert page.cursor and len(page.keys) < COUNT
    found = list(page.keys)
    while page.cursor:
        page = await client.keys(Account, timeout=10, cursor=page.cursor)
        found += page.keys
    assert sorted(found) == sorted(keys)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"limit": 0}, "a page has 1 to 1000 keys, not 0"),
        ({"limit": 1001}, "a page has 1 to 1000 keys, not 1001"),
        ({"prefix": "x" * 513}, "a prefix is str or bytes, up to 512"),
        ({"prefix": 5}, "a prefix is str or bytes"),
        ({"prefix": "\ud800"}, "holds a lone surrogate"),
        ({"cursor": "nonsense"}, "cursor 'nonsense' is none"),
        ({"cursor": 7}, "cursor 7 is none"),
        ({"cursor": "k5IBAg=="}, "is none"),
        ({"timeout": -1}, "timeout must be above 0"),
    ],
)
async def test_what_is_no_page_is_said_before_anything_is_asked(client, options, says):
    with pytest.raises(BadRequest, match=says):
        await client.keys(Account, **options)


async def test_a_cursor_of_another_listing_is_refused(client):
    await fill(client)
    page = await client.keys(Account, limit=1)
    for entity, prefix in ((mesh.KV, ""), (Account, "k")):
        with pytest.raises(BadRequest, match="another entity, prefix or mesh"):
            await client.keys(entity, prefix=prefix, cursor=page.cursor)


async def test_an_entity_that_there_is_not_is_named(client):
    for work in (client.keys("Nobody"), client.exists("Nobody", "a"), client.delete("Nobody", "a")):
        with pytest.raises(BadRequest, match="no entity is named 'Nobody'"):
            await work
    for work in (client.keys("Account.read"), client.exists("", "a")):
        with pytest.raises(BadRequest, match="an entity is named without a dot"):
            await work


async def test_a_closed_client_lists_nothing(client):
    await client.close()
    with pytest.raises(Unavailable, match="closed"):
        await client.keys(Account)


async def test_a_key_is_deleted_when_its_time_is_over_though_nobody_calls_it(meshed, client):
    await client.call(Token.use, "t")
    partition = partition_of(b"t", PARTITIONS)
    assert (await client.keys(Token)).keys == ["t"]

    async def is_deleted() -> bool:
        return not any(n.startswith(b"s") for n in meshed.server.partitions[partition])

    await meshed.until(is_deleted)
    assert await client.call(Token.use, "t") == 1


# ---------------------------------------------------------------------------------- the blocking client


def test_the_blocking_client_does_the_same():
    with mesh_in_thread(app=[Account], replaces=False) as meshed, meshed.connect() as client:
        keys = [f"k{n}" for n in range(COUNT)]
        for future in [client.submit(Account.deposit, key, 1) for key in keys]:
            future.result()
        page = client.keys(Account, limit=150)
        rest = client.keys(Account, cursor=page.cursor)
        assert len(page.keys) == 150 and rest.cursor == ""
        assert sorted((*page.keys, *rest.keys)) == sorted(keys)
        assert sorted(client.iterate_keys(Account, prefix="k1")) == sorted(
            key for key in keys if key[:2] == "k1"
        )
        assert client.delete(Account, "k1", idempotency_key="a") is True
        assert client.delete(Account, "k1", idempotency_key="a") is True
        assert client.delete(Account, "k1") is False
        assert client.exists(Account, "k1") is False and client.exists(Account, "k2") is True
        client.close()
        with pytest.raises(Unavailable, match="closed"):
            client.keys(Account)


# ---------------------------------------------------------------------------------------- the command line


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """`mesh keys` in a folder of its own, with a mesh that runs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with mesh_in_thread(app=[Account], replaces=False) as meshed:
        place = rundir.RunDir.take("default")
        place.write({"endpoints": [meshed.endpoint], "pid": 1, "token": "", "log": ""})
        with meshed.connect() as client:
            for key in ("alice", "al\nbert", "bob", RAW):
                client.call(Account.deposit, key, 1)

        def run(*arguments: str) -> tuple[int, list[str], str]:
            code = main(["keys", *arguments])
            out, err = capsys.readouterr()
            return code, out.splitlines(), err

        yield run
        place.remove()


def test_mesh_keys_prints_one_key_a_line(run):
    code, lines, err = run("Account")
    assert (code, err) == (0, "")
    assert sorted(lines) == sorted(["'al\\nbert'", "alice", "b'\\xff\\x00raw'", "bob"])
    assert sorted(run("Account", "--prefix", "al")[1]) == ["'al\\nbert'", "alice"]
    assert len(run("Account", "--limit", "3")[1]) == 3
    assert run("KV")[:2] == (0, [])


def test_mesh_keys_prints_json_for_programs(run):
    _, lines, _ = run("Account", "--json")
    found = [json.loads(line) for line in lines]
    assert sorted(map(str, found)) == sorted(
        map(str, ["alice", "al\nbert", "bob", {"hex": "ff00726177"}])
    )


def test_mesh_keys_says_what_is_wrong_in_one_line(run, capsys):
    code, lines, err = run("Nobody")
    assert (code, lines) == (1, [])
    assert err.startswith("mesh keys: no entity is named 'Nobody'") and err.count("\n") == 1
    with pytest.raises(SystemExit) as ended:
        run("Account", "--limit", "0")
    assert ended.value.code == 2
    assert "--limit: a whole number from 1 on, not '0'" in capsys.readouterr().err
