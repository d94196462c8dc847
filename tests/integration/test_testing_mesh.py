"""`mesh.testing.mesh`: what a user's own tests stand on."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time

import pytest

import mesh

pytestmark = pytest.mark.timeout(30)


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


async def test_a_call_is_answered_by_the_handler_that_owns_its_key() -> None:
    async with mesh.testing.mesh(Account, handlers=3) as m, m.connect() as client:
        assert m.handlers == ("h-0", "h-1", "h-2")
        assert {m.owner_of(f"k{i}") for i in range(64)} == set(m.handlers)
        assert await client.call(Account.deposit, "alice", 5) == 5
        done = {h: m.nodes[h]._core.beat().done for h in m.handlers}
        assert done == {h: int(h == m.owner_of("alice")) for h in m.handlers}


async def test_a_killed_handlers_keys_are_served_by_the_others_and_nothing_is_lost() -> None:
    async with mesh.testing.mesh(Account) as m, m.connect() as client:
        for i in range(32):
            await client.call(Account.deposit, f"k{i}", i)
        await m.kill("h-0")
        assert m.handlers == ("h-1",)
        assert {m.owner_of(f"k{i}") for i in range(32)} == {"h-1"}
        assert [await client.call(Account.read, f"k{i}") for i in range(32)] == list(range(32))


async def test_callers_of_a_killed_handler_get_their_answers_once() -> None:
    async with mesh.testing.mesh(Account) as m, m.connect() as client:
        calls = [
            asyncio.ensure_future(client.call(Account.deposit, f"k{i % 16}", 1)) for i in range(64)
        ]
        await asyncio.sleep(0)
        await m.kill("h-1")
        replies = await asyncio.gather(*calls)
        assert sorted(replies) == sorted([1, 2, 3, 4] * 16)


async def test_a_replacement_comes_when_the_clock_is_moved_and_not_before() -> None:
    async with mesh.testing.mesh(Account) as m:
        killed = await m.kill("h-0")
        for _ in range(
            40
        ):  # ticks of the supervisor, and time that the machine has and the mesh has not
            await asyncio.sleep(0.01)
        assert m.handlers == ("h-1",)
        await m.clock.advance(0.25)
        await m.until_ready()
        assert m.handlers == ("h-0", "h-1")
        assert m.nodes["h-0"].nonce != killed.nonce


async def test_a_handler_that_fails_is_taken_over_like_one_that_was_killed() -> None:
    async with mesh.testing.mesh(Account) as m, m.connect() as client:
        await client.call(Account.deposit, "alice", 5)
        failing = m.nodes[m.owner_of("alice")]
        failing.ended.set()  # what a task of it does that ends in an error
        await m.until(lambda: m.is_taken_over(failing))
        assert await client.call(Account.read, "alice") == 5


async def test_whoever_waits_for_the_clock_to_move_finds_that_all_of_the_mesh_has_noticed() -> None:
    async with mesh.testing.mesh(Account) as m:
        node = m.nodes["h-0"]
        before = node._core.retention.now
        await m.clock.advance(1000)
        assert node._core.retention.now - before >= 1000
        started = len(await m.supervisor.questions.events())
        await m.kill("h-0")
        await m.clock.advance(0.25)
        kinds = [e["kind"] for e in (await m.supervisor.questions.events())[started:]]
        assert "handler_starting" in kinds


async def test_without_replacements_a_killed_handler_stays_away() -> None:
    async with mesh.testing.mesh(Account, handlers=3, replaces=False) as m:
        await m.kill("h-0")
        await m.clock.advance(3600)
        await asyncio.sleep(0.1)
        assert m.handlers == ("h-1", "h-2")


async def test_calls_wait_for_the_replacement_of_the_last_handler() -> None:
    async with mesh.testing.mesh(Account, handlers=1) as m, m.connect() as client:
        await client.call(Account.deposit, "alice", 5)
        await m.kill("h-0")
        async with asyncio.timeout(10):
            assert await client.call(Account.read, "alice") == 5


async def test_a_deadline_is_over_when_the_clock_says_so() -> None:
    async with mesh.testing.mesh(Account, replaces=False) as m, m.connect() as client:
        for link in m.server.links:
            m.server.pause(link)  # nothing is acknowledged any more
        waiting = asyncio.ensure_future(client.call(Account.deposit, "alice", 1, timeout=60))
        await m.until(lambda: any(node._core._answers.pending for node in m.nodes.values()))
        await m.clock.advance(59)
        assert not waiting.done()
        before = time.monotonic()
        await m.clock.advance(1)
        with pytest.raises(mesh.OutcomeUnknown):
            await waiting
        assert time.monotonic() - before < 5


async def test_the_clock_goes_forward_only() -> None:
    async with mesh.testing.mesh() as m:
        await m.clock.advance(0)
        for wrong in (-1, float("nan"), float("inf")):
            with pytest.raises(ValueError, match="advance by 0 seconds or more"):
                m.clock.advance(wrong)


async def test_events_are_stamped_by_the_clock() -> None:
    async with mesh.testing.mesh() as m:
        begun = m.clock.wall()
        m.clock.advance(1000)
        await m.kill("h-0")
        [failover] = [e for e in await m.supervisor.questions.events() if e["kind"] == "failover"]
        assert failover["at"] - begun == pytest.approx(1000, abs=1)


async def test_status_is_that_of_the_command_line() -> None:
    async with mesh.testing.mesh(Account) as m:
        status = m.status()
        assert status == await m.status()
        assert status["endpoints"] == [m.endpoint]
        assert status["ready"] is True
        assert [h["state"] for h in status["handlers"]] == ["alive", "alive"]
        assert status["store"]["kind"] == "memory"


async def test_a_token_is_asked_of_strangers_only() -> None:
    async with mesh.testing.mesh(token="secret") as m, m.connect() as client:
        assert await client.call(mesh.KV.incr, "k") == 1
        with pytest.raises(mesh.AuthenticationError):
            await mesh.connect(m.endpoint, token="wrong")


async def test_meshes_side_by_side_know_nothing_of_each_other() -> None:
    async with mesh.testing.mesh() as one, mesh.testing.mesh() as two:
        first, second = await one.connect(), await two.connect()
        assert await first.call(mesh.KV.incr, "k") == 1
        assert await second.call(mesh.KV.get, "k") is None
        one.clock.advance(100)
        assert two.clock.passed_s == 0


async def test_the_end_leaves_neither_task_nor_socket() -> None:
    before = asyncio.all_tasks()
    async with mesh.testing.mesh(Account) as m:
        client = await m.connect()
        await client.call(Account.deposit, "alice", 1)
        endpoint = m.endpoint
    assert asyncio.all_tasks() == before
    with pytest.raises(mesh.Unavailable):
        await client.call(Account.read, "alice")
    with pytest.raises(mesh.Unavailable):
        await mesh.connect(endpoint, timeout=0.2)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"handlers": 0}, "0 handlers cannot share 256 partitions"),
        ({"handlers": 9, "partitions": 8}, "9 handlers cannot share 8 partitions"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(options: dict[str, int], says: str) -> None:
    with pytest.raises(mesh.SetupError, match=says):
        mesh.testing.mesh(**options)


def test_two_entities_of_one_name_are_refused() -> None:
    other = type("Account", (), {"__annotations__": {"balance": int}, "balance": 0})
    with pytest.raises(mesh.SetupError, match="two entities are named 'Account'"):
        mesh.testing.mesh(Account, mesh.entity(other))


async def test_a_handler_that_does_not_live_cannot_be_killed() -> None:
    async with mesh.testing.mesh(replaces=False) as m:
        await m.kill("h-0")
        with pytest.raises(mesh.BadRequest, match=r"no handler 'h-0' lives; there are \['h-1'\]"):
            await m.kill("h-0")


def test_a_mesh_that_was_not_entered_says_so() -> None:
    from mesh.testing.hosted import InProcessMesh

    m = InProcessMesh((), handlers=1, partitions=8, replaces=True, token="")
    assert repr(m) == "<InProcessMesh testing, not entered>"
    with pytest.raises(mesh.SetupError, match="enter it first"):
        _ = m.endpoint


async def test_a_blocking_client_on_the_meshs_own_loop_is_refused() -> None:
    async with mesh.testing.mesh() as m:
        with pytest.raises(mesh.BadRequest, match="would keep this loop from turning"):
            m.client()
        client = await asyncio.to_thread(m.client)
        assert await asyncio.to_thread(client.call, mesh.KV.incr, "k") == 1


def test_code_that_blocks_has_the_same_mesh() -> None:
    with mesh.testing.mesh(Account) as m:
        client = m.client()
        assert client.call(Account.deposit, "alice", 5) == 5
        m.kill(m.owner_of("alice"))
        assert client.call(Account.read, "alice") == 5
        m.clock.advance(0.25)
        m.until_ready()
        assert m.handlers == ("h-0", "h-1")
        assert m.status()["ready"] is True
        assert "BlockingMesh testing at 127.0.0.1" in repr(m)
    assert not [t for t in threading.enumerate() if t.name.startswith("mesh-")]


def test_a_blocking_callers_deadline_follows_the_clock() -> None:
    with mesh.testing.mesh(Account, replaces=False) as m, m.client() as client:
        for link in m._hosted.server.links:
            m._hosted.server.pause(link)
        waiting = client.submit(Account.deposit, "alice", 1, timeout=60)
        m._run(
            m._hosted.until(lambda: any(n._core._answers.pending for n in m._hosted.nodes.values()))
        )
        m.clock.advance(60)
        with pytest.raises(mesh.OutcomeUnknown):
            waiting.result(5)


def test_what_was_submitted_before_the_clock_moves_counts_from_before() -> None:
    for _ in range(20):
        with mesh.testing.mesh(handlers=1, replaces=False) as m, m.client() as client:
            m.kill("h-0")
            waiting = client.submit(mesh.KV.get, "k", timeout=30)
            m.clock.advance(30)
            with pytest.raises(mesh.MeshError, match="30 s"):
                waiting.result(5)


def test_the_kit_comes_with_the_library_and_brings_no_ray() -> None:
    code = (
        "import mesh, sys; assert 'mesh.node' not in sys.modules;"
        "mesh.testing.mesh; assert not {'ray', 'actors'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


async def test_it_is_ready_within_a_tenth_of_a_second() -> None:
    took = []
    for _ in range(5):  # the best of them: a neighbour may have the core
        begun = time.perf_counter()
        async with mesh.testing.mesh(Account):
            took.append(time.perf_counter() - begun)
    assert min(took) < 0.1, took
