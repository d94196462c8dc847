"""The command line as its users have it: what it prints, what it says of mistakes, its exit codes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from running import HANDLERS, MESH, Cluster, Run, write_app

from mesh.launch import Launched

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]


def shape(value: Any) -> Any:
    """The fields of a value, and of the first of each list."""
    if isinstance(value, dict):
        return {field: shape(inner) for field, inner in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return type(value).__name__


async def test_status_has_exactly_the_promised_fields(
    cluster: Cluster, name: str, run: Run, shared: Launched
) -> None:
    status = json.loads(run("status", "--name", name, "--json").stdout)
    assert shape(status) == {
        "name": "str",
        "endpoints": ["str"],
        "partitions": "int",
        "ready": "bool",
        "leader": "str",
        "table_version": ["int"],
        "store_life": "int",
        "supervisors": [{"id": "str", "role": "str", "pid": "int", "host": "str", "port": "int"}],
        "wardens": [{"id": "str", "node": "str", "pid": "int"}],
        "handlers": [
            {
                "id": "str",
                "pid": "int",
                "host": "str",
                "port": "int",
                "region": "NoneType",
                "zone": "NoneType",
                "role": "str",
                "state": "str",
                "health": "str",
                "partitions": ["int"],
                "process": "str",
            }
        ],
        "store": {
            "kind": "str",
            "in_sync": ["str"],
            "async_lag_ms": "float",
            "nodes": [{"role": "str", "pid": "int", "host": "str", "port": "int"}],
        },
        "outcomes": {"done": "int", "entity_error": "int", "not_executed": "int", "unknown": "int"},
        "ray": {"address": "str", "dashboard": "NoneType"},
        "log": "str",
    }
    assert status["name"] == name
    assert [h["id"] for h in status["handlers"]] == [f"h-{i}" for i in range(HANDLERS)]
    assert {h["state"] for h in status["handlers"]} == {"alive"}
    roles = sorted(node["role"] for node in status["store"]["nodes"])
    assert roles == ["primary", "replica", "replica", "sentinel", "sentinel", "sentinel"]
    replicas = [n for n in status["store"]["nodes"] if n["role"] == "replica"]
    assert status["store"]["in_sync"] == sorted(f"{n['host']}:{n['port']}" for n in replicas)
    for process in (*status["handlers"], *status["supervisors"], *status["store"]["nodes"]):
        os.kill(process["pid"], 0)
    assert [type(part) for part in status["table_version"]] == [int, int, int]
    assert {type(node["lag_bytes"]) for node in replicas} == {int}
    assert {node["in_sync"] for node in replicas} == {True}
    assert {h["role"] for h in status["handlers"]} == {"active"}
    # What `mesh up --json` has printed, and what Python is told.
    assert shape(shared.status) == shape(status)


async def test_status_for_people_names_every_part(cluster: Cluster, name: str, run: Run) -> None:
    words = run("status", "--name", name).stdout
    for part in (name, "s-0", "leader", "w-0", "h-0", "h-3", "primary", "sentinel", "in sync"):
        assert part in words


async def test_events_are_one_json_object_a_line(cluster: Cluster, name: str, run: Run) -> None:
    [pid] = {h["pid"] for h in (await cluster.status())["handlers"] if h["id"] == "h-1"}
    since = await cluster.kill("h-1")
    await cluster.until(lambda s: s["ready"] and pid not in {h["pid"] for h in s["handlers"]})
    events = [json.loads(x) for x in run("events", "--name", name, "--json").stdout.splitlines()]
    assert all({"kind", "at"} <= event.keys() for event in events)
    assert "leading" in {event["kind"] for event in events}
    new = [e for e in events if e["kind"] == "handler_started" and e["at"] >= since]
    assert [event["handler"] for event in new] == ["h-1"]


def test_events_can_be_followed_and_left(name: str, shared: Launched) -> None:
    with subprocess.Popen(
        [MESH, "events", "--name", name, "--follow"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as follower:
        # The warden may be there before the leader has opened its life.
        first = [follower.stdout.readline() for _ in range(2)]
        follower.send_signal(2)
        _, stderr = follower.communicate(timeout=20)
    assert any(b"leads" in line for line in first), first
    assert follower.returncode == 130
    assert stderr == b""


def test_call_prints_the_reply_as_json(name: str, run: Run, shared: Launched) -> None:
    def call(*arguments: str) -> Any:
        return json.loads(run("call", "--name", name, *arguments).stdout)

    assert call("KV.incr", "cli", "5") == 5
    assert call("KV.incr", "cli", "-7") == -2
    assert call("KV.put", "cli", '{"a": [1, null, "ü"]}') is None
    assert call("KV.get", "cli") == {"a": [1, None, "ü"]}
    assert call("Account.deposit", "alice", "5") == 5
    assert call("Account.read", "alice") == 5


async def test_call_shows_values_that_json_does_not_know(name: str, run: Run, client: Any) -> None:
    await client.call("KV.put", "odd", {b"k": b"v", "t": (1, 2.5, True)})
    shown = run("call", "--name", name, "KV.get", "odd").stdout
    assert json.loads(shown) == {"b'k'": "b'v'", "t": [1, 2.5, True]}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["KV.nope", "a"], "KV has no method 'nope'; it has ["),
        (["Nope.get", "a"], "no entity is named 'Nope'; this mesh has ['Account', 'KV']"),
        (["incr", "a"], 'method must be Entity.method or "Entity.method"'),
        (
            ["KV.incr", "a", "x"],
            "argument 'x' is not JSON; write a string with its quotes: '\"x\"'",
        ),
        (["KV.incr", "a", "1", "2"], "too many positional arguments"),
        (["KV.incr", "a", '"x"'], "incr needs whole numbers"),
        (["KV.incr", ""], "key must be 1 to 512 bytes long, this one has 0"),
        (["Account.deposit", "a", "0"], "a deposit is above 0"),
        (["KV.get", "a", "--timeout", "0"], "--timeout must be 0.001 to 86400 s, not 0.0"),
    ],
)
def test_a_mistake_in_a_call_is_one_line(
    arguments: list[str], says: str, name: str, fails: Callable[..., str], shared: Launched
) -> None:
    assert says in fails("call", "--name", name, *arguments)


async def test_a_name_that_runs_already_is_refused_and_left_as_it_is(
    cluster: Cluster, name: str, fails: Callable[..., str]
) -> None:
    before = await cluster.status()
    line = fails("up", "--name", name, "--port", "0", "--detach", "--json")
    assert f"a mesh named {name!r} runs already" in line
    assert before["endpoints"][0] in line
    assert f"mesh down --name {name}" in line
    assert (await cluster.status())["table_version"] == before["table_version"]


@pytest.mark.parametrize("command", ["down", "status", "events", "call"])
def test_a_mesh_that_does_not_run_is_named(command: str, fails: Callable[..., str]) -> None:
    more = ["KV.get", "k"] if command == "call" else []
    assert "no mesh named 'nobody' runs on this machine" in fails(
        command, "--name", "nobody", *more
    )


def test_a_taken_port_is_refused_before_anything_starts(fails: Callable[..., str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        line = fails("up", "--name", "t", "--port", port, "--data-dir", "d", "--json")
    assert f"127.0.0.1:{port}" in line
    assert "choose another port" in line


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--app", "nowhere"], "importing 'nowhere' failed: ModuleNotFoundError"),
        (["--app", "broken"], "broken.py, line 1: ZeroDivisionError: division by zero"),
        (["--app", "bank:Nobody"], "'bank' has no Nobody"),
        (["--app", "json"], "'json' defines no @mesh.entity class"),
        (["--app", "a b"], 'is not "module" or "module:Class,Class"'),
        (["--handlers", "0"], "--handlers must be 1 to 1000, not 0"),
        (["--handlers", "9", "--partitions", "8"], "9 handlers cannot share 8 partitions"),
        (["--partitions", "99999"], "--partitions must be 1 to 16384, not 99999"),
        (["--name", "a/b"], "mesh name 'a/b': use 1 to 64 letters"),
        (["--port", "99999"], "--port must be 0 to 65535, not 99999"),
        (["--host", "0.0.0.0"], "set a token"),
        (["--store", "http://x"], "redis+sentinel:// or rediss+sentinel://, not 'http'"),
        (["--durability", "maybe"], "choose auto, replicated, fsynced or process"),
    ],
)
def test_what_cannot_be_brought_up_is_one_line(
    arguments: list[str], says: str, fails: Callable[..., str], tmp_path: Path
) -> None:
    write_app(tmp_path)
    (tmp_path / "broken.py").write_text("1 / 0\n")
    name = [] if "--name" in arguments else ["--name", f"t-{os.getpid()}"]
    line = fails("up", *name, "--port", "0", "--data-dir", "d", "--json", *arguments)
    assert says in line


@pytest.mark.parametrize(
    "arguments",
    [[], ["nope"], ["call"], ["up", "--handlers", "many"], ["status", "--nope"], ["down", "x"]],
)
def test_arguments_that_are_none_are_a_usage_error(arguments: list[str], run: Run) -> None:
    done = run(*arguments, code=2)
    assert done.stderr.splitlines()[-1].startswith("mesh")
    assert "error:" in done.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["up", "--help"], ["call", "-h"]])
def test_help_is_help(arguments: list[str], run: Run) -> None:
    assert "usage: mesh" in run(*arguments).stdout
