"""The supervisor as others meet it: questions, odd messages, its absence, its store."""

from __future__ import annotations

import asyncio

import msgpack
import pytest
from mesh_in_process import NAME, PARTITIONS, InProcess, raw_peer

from mesh.client.tool import Tool
from mesh.core import signals as sv
from mesh.core.life_numbers import count_of
from mesh.core.messages import (
    Answer,
    Ask,
    Exited,
    Leading,
    WardenHere,
    Welcome,
    unpack_message,
)
from mesh.core.wire import Kind, pack_frame
from mesh.errors import SetupError, Unavailable
from mesh.store.memory import MemoryServer, MemoryStore
from mesh.supervisor import Supervisor, SupervisorSettings


@pytest.fixture
async def meshed():
    async with InProcess(2) as running:
        yield running


@pytest.fixture
async def tool(meshed):
    tool = await Tool.open(meshed.endpoint)
    yield tool
    tool.close()


async def test_status_tells_who_owns_what(meshed, tool):
    client = await meshed.connect()
    await client.call("KV.incr", "k")
    status = await tool.ask("status")
    assert status["name"] == NAME
    assert status["endpoints"] == [meshed.endpoint]
    assert status["partitions"] == PARTITIONS
    version = client.table.version
    assert status["table_version"] == [count_of(version.life), version.token, version.number]
    assert status["store_life"] == 1
    assert [s["role"] for s in status["supervisors"]] == ["leader"]
    assert [h["state"] for h in status["handlers"]] == ["alive", "alive"]
    assert sorted(p for h in status["handlers"] for p in h["partitions"]) == list(range(PARTITIONS))
    ports = {h["id"]: h["port"] for h in status["handlers"]}
    assert ports == {id_: node.port for id_, node in meshed.nodes.items()}


async def test_the_counts_of_the_handlers_add_up(meshed, tool):
    client = await meshed.connect()
    for i in range(7):
        await client.call("KV.incr", f"k{i}")
    with pytest.raises(Exception, match="whole numbers"):
        await client.call("KV.incr", "k1", "x")

    async def counted() -> bool:
        outcomes = (await tool.ask("status"))["outcomes"]
        return outcomes == {"done": 7, "entity_error": 1, "not_executed": 0, "unknown": 0}

    await meshed.until(counted)


async def test_a_follower_hears_of_what_happens_as_it_happens(meshed, tool):
    feed = tool.follow()
    next_event = asyncio.create_task(anext(feed))
    await meshed.until(lambda: bool(meshed.supervisor.journal.followers))
    await meshed.kill("h-0")
    kinds = [(await next_event)["kind"]]
    async with asyncio.timeout(5):
        while "handover" not in kinds:
            kinds.append((await anext(feed))["kind"])
    expected = ["failover", "handler_starting", "handler_started", "handover"]
    assert [kind for kind in kinds if kind in expected] == expected
    await feed.aclose()


async def test_an_unknown_question_is_answered_with_the_known_ones(tool):
    with pytest.raises(Unavailable, match=r"no question is named 'nope'; there are \['events', "):
        await tool.ask("nope")


async def test_a_handler_is_no_supervisor(meshed):
    with pytest.raises(Unavailable, match="is handler h-0, not a supervisor"):
        await Tool.open(meshed.address("h-0"))


async def test_questions_end_when_the_supervisor_goes_away(meshed, tool):
    await meshed.supervisor.stop()
    with pytest.raises(Unavailable, match="went away"):
        await tool.ask("status")


ODD = {
    "Ask": [1, ["status"], 7],
    "Beat": [[1], "many", None, {}, "x", "y", "z"],
    "Register": [7, {}, [], "port", "pid", 1, "heavy", 2, 3, "life", "grant", "held"],
    "Released": [b"n", 1, [[1]], 9],
    "Exited": [{}, "long"],
    "WardenHere": [[], {}, "pid", 3],
    "Adopted": [[], "1", "2"],
    "Grant": [1, b"", 1, 1, True, b""],
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("role", ["tool", "handler"])
async def test_odd_messages_cost_their_sender_the_connection_and_nobody_else(
    meshed, tool, name, role
):
    async with raw_peer(meshed.endpoint) as peer:
        peer.send_hello(role=role)
        await peer.frame(Kind.CONTROL)
        peer.send(pack_frame(Kind.CONTROL, msgpack.packb([name, *ODD[name]])))
        await peer.last_words()
    assert (await tool.ask("status"))["ready"]
    assert not meshed.supervisor.ended.is_set()


async def test_the_exit_of_a_process_that_nobody_knows_changes_nothing(meshed):
    before = (await meshed.status())["table_version"]
    async with raw_peer(meshed.endpoint) as peer:
        peer.send_hello(role="warden")
        peer.send(Exited(b"stranger", "h-9", 0.0).frame())
        peer.send(Ask(1, "status", []).frame())
        said = [unpack_message(await peer.frame(Kind.CONTROL)) for _ in range(3)]
        assert list(map(type, said)) == [Welcome, Leading, Answer]
    assert (await meshed.status())["table_version"] == before


async def test_traffic_new_clients_and_redirects_need_no_supervisor(meshed):
    client = await meshed.connect()
    await meshed.supervisor.stop()
    assert [await client.call("KV.incr", f"k{i}") for i in range(32)] == [1] * 32
    newcomer = await meshed.connect(meshed.address("h-0"))
    assert [await newcomer.call("KV.incr", f"k{i}") for i in range(32)] == [2] * 32


async def test_a_handler_that_lost_its_link_comes_back_and_nothing_moves(meshed):
    before = (await meshed.status())["table_version"]
    links = meshed.supervisor.links.handlers
    lost = set(links.values())
    for conn in lost:
        conn.close()
    await meshed.until(lambda: len(links) == 2 and lost.isdisjoint(links.values()))
    await meshed.until(meshed.is_ready)
    assert (await meshed.status())["table_version"] == before
    assert await meshed.events("failover") == []


async def test_a_restarted_store_gets_its_next_life_and_handlers_keep_their_links_and_all_they_have(
    meshed,
):
    client = await meshed.connect()
    assert await client.call("KV.incr", "k") == 1
    links = dict(meshed.supervisor.links.handlers)
    processes = {id_: node.nonce for id_, node in meshed.nodes.items()}
    meshed.server.restart()
    assert await client.call("KV.incr", "k") == 2
    assert (await meshed.status())["store_life"] == 2
    assert meshed.supervisor.links.handlers == links
    assert {id_: node.nonce for id_, node in meshed.nodes.items()} == processes
    await meshed.until(lambda: not any(n._core.to_repeat() for n in meshed.nodes.values()))


def supervisor(server: MemoryServer, **changed: object) -> Supervisor:
    options = {"partitions": PARTITIONS, "handlers": ("h-0",), "open_s": 0.2, **changed}
    settings = SupervisorSettings(mesh=NAME, id="s-0", **options)
    return Supervisor(settings, MemoryStore(server), None)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"partitions": 8}, "was created with 16 partitions, not 8; the number is fixed"),
        ({"replicas": 3}, "2 of 3 replicas are attached; attach the others"),
    ],
)
async def test_a_store_that_does_not_fit_is_refused(changed, says):
    server = MemoryServer(2)
    first = supervisor(server)
    await first.lead()
    await first.stop()
    with pytest.raises(SetupError, match=says):
        await supervisor(server, **changed).lead()


async def test_replicas_that_confirm_nothing_are_named_when_the_time_is_up():
    server = MemoryServer(2)
    for link in server.links:
        server.pause(link)
    with pytest.raises(SetupError, match=r"not ready within 0\.2 s: its replicas .* do not"):
        await supervisor(server).lead()


async def test_a_store_that_is_not_there_is_told_as_that():
    server = MemoryServer(2)
    server.reachable = False
    with pytest.raises(SetupError, match=r"not ready within 0\.2 s: memory store: unreachable"):
        await supervisor(server).lead()


async def test_the_next_mesh_on_the_same_store_goes_on_with_its_data():
    async with InProcess(2) as first:
        client = await first.connect()
        assert [await client.call("KV.incr", f"k{i}") for i in range(20)] == [1] * 20
    async with InProcess(3, server=first.server) as second:
        client = await second.connect()
        assert [await client.call("KV.incr", f"k{i}") for i in range(20)] == [2] * 20
        assert (await second.status())["store_life"] == 2


async def test_once_told_to_stop_nobody_is_taken_over_or_replaced(meshed, tool):
    before = (await meshed.status())["table_version"]
    began: list[str] = []
    starting = asyncio.Event()

    async def hang(id: str) -> None:
        began.append(id)
        starting.set()
        await asyncio.Event().wait()

    meshed.start_handler = hang
    killed = await meshed.kill("h-0")
    await starting.wait()
    moved = (await meshed.status())["table_version"]
    assert moved > before
    await tool.ask("stop")
    await meshed.kill("h-1")
    meshed.supervisor.leader.step(sv.Tick())
    assert killed.nonce not in meshed.supervisor.links.handlers
    assert (await meshed.status())["table_version"] == moved
    await meshed.until(lambda: all(t.done() for t in meshed.supervisor.leader.starts.values()))
    assert began == ["h-0"]
    assert len(await meshed.events("failover")) == 1


async def test_a_warden_that_comes_and_goes_is_on_record(meshed):
    async with raw_peer(meshed.endpoint) as peer:
        peer.send_hello(role="warden")
        peer.send(WardenHere("w-0", "here", 17, [b"n"]).frame())
        await meshed.until(lambda: bool(meshed.supervisor.links.wardens))
    await meshed.until(lambda: not meshed.supervisor.links.wardens)
    [here], [lost] = await meshed.events("warden_here"), await meshed.events("warden_lost")
    assert (here["warden"], here["node"], here["pid"], here["watching"]) == ("w-0", "here", 17, 1)
    assert (lost["warden"], lost["node"]) == ("w-0", "here")
