"""Names, options and defaults that users' scripts rely on: whoever changes one of them breaks a script.

What they do is tested elsewhere; tests/CONTRACT.md says where.
"""

from __future__ import annotations

import argparse
import inspect
import os
import re
import subprocess
import sys
import tomllib
from collections import Counter
from importlib import import_module, metadata
from pathlib import Path

import pytest

import mesh
from mesh.cli.common import layers_of
from mesh.cli.demo import _conclude
from mesh.cli.status import render
from mesh.client.sync import Client
from mesh.config import MeshConfig
from mesh.core.keyspace import DEFAULT_PARTITIONS
from mesh.core.members import Member
from mesh.core.table import HandlerRow
from mesh.entities import spec_of
from mesh.testing.load import Verdict

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


# ------------------------------------------------------------------------- this table


def test_every_test_that_the_table_names_is_there():
    tests = ROOT / "tests"
    rows = [row for row in (tests / "CONTRACT.md").read_text().splitlines() if row[:2] == "| "]
    named = 0
    for row in rows:
        promise, held, end = row[2:].split("|")
        assert promise.strip() and held.strip() and not end, row
        file = ""
        for found in re.finditer(r"([\w/]+\.py)?(?:::(test_\w+))?", held):
            file = found[1] or file
            if found[2]:
                named += 1
                assert f"def {found[2]}(" in (tests / file).read_text(), found[0]
            elif found[1]:
                assert (tests / file).is_file(), file
        assert file or re.search("not yet|in work|by reading|held by|---", held), row
    assert named > 100


# ---------------------------------------------------------------------------- package


def test_the_distribution_brings_the_library_the_actors_and_the_command():
    assert PROJECT["name"] == "raymesh"
    assert PROJECT["requires-python"] == ">=3.11"
    assert PROJECT["scripts"] == {"mesh": "mesh.cli:main"}
    assert "embedded" in PROJECT["optional-dependencies"]
    packages = {re.split("[<>=]", package)[0] for package in PROJECT["dependencies"]}
    assert packages == {"ray", "redis", "hiredis", "msgpack", "uvloop"}
    [command] = metadata.entry_points(group="console_scripts", name="mesh")
    assert command.dist is not None and command.dist.name == "raymesh"
    for package in ("mesh", "actors"):
        assert (Path(str(import_module(package).__file__)).parent / "py.typed").is_file()


@pytest.mark.parametrize(
    ("target", "then"), [("install", "touch"), ("demo", "mesh demo"), ("test", "ruff")]
)
def test_from_a_bare_checkout_make_installs_first(target, then, tmp_path):
    (tmp_path / "Makefile").write_bytes((ROOT / "Makefile").read_bytes())
    for file in ("requirements.lock", "pyproject.toml"):
        (tmp_path / file).touch()
    said = subprocess.check_output(
        ["make", "-n", target],
        cwd=tmp_path,
        text=True,
        timeout=20,
        env={k: v for k, v in os.environ.items() if not k.startswith("MAKE")},
    )
    places = [said.find(step) for step in ("-m venv .venv", "-r requirements.lock", "-e .", then)]
    assert -1 not in places and places == sorted(places)


def test_readme_says_what_is_no_goal():
    text = " ".join((ROOT / "README.md").read_text().lower().split())
    _, _, not_a_goal = text.partition("not a goal")
    for what in (
        *("workflows and reminders", "streaming", "change feeds", "transactions across keys"),
        "multi-master writes to one key with conflict resolution",
        "changing the number of partitions in place",
    ):
        assert what in not_a_goal


@pytest.mark.parametrize(
    "name",
    sorted(
        path.stem
        for path in (ROOT / "benchmarks").glob("*.py")
        if "ArgumentParser" in path.read_text() and path.stem != "worker"
    ),
)
def test_every_benchmark_writes_its_figures_where_it_is_told(name):
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
    )
    assert "--json" in done.stdout


# ---------------------------------------------------------------------------- library

NAMES = """
    entity command query migrate health context KV
    connect AsyncClient Client local up down testing
    MeshError EntityError BadRequest Overloaded CircuitOpen Unavailable DeadlineExceeded OutcomeUnknown
    IdempotencyConflict AuthenticationError
"""


@pytest.mark.parametrize("name", NAMES.split())
def test_a_name_of_the_library_is_there(name):
    assert name in mesh.__all__
    assert getattr(mesh, name) is not None


def options(function):
    """Its keyword arguments with their defaults."""
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def test_options_of_entities_and_methods_have_their_names():
    assert options(mesh.entity).keys() >= {"name", "version", "ttl", "durability", "priority"}
    for mark in (mesh.command, mesh.query):
        assert options(mark).keys() >= {"blocking", "limit_s"}
    assert list(inspect.signature(mesh.migrate).parameters) == ["from_version"]


@pytest.mark.parametrize(
    ("method", "signature", "is_query"),
    [
        ("put", "(value)", False),
        ("get", "()", True),
        ("delete", "()", False),
        ("cas", "(expected, new) -> bool", False),
        ("incr", "(by=1) -> int", False),
        ("append", "(item) -> int", False),
        ("items", "() -> list", True),
    ],
)
def test_kv_has_its_methods(method, signature, is_query):
    found = spec_of(mesh.KV).methods[method]
    taken = [p.replace(annotation=p.empty) for p in found.signature.parameters.values()]
    shown = str(found.signature.replace(parameters=taken)).replace("'", "").replace("[Any]", "")
    assert shown.removesuffix(" -> Any").removesuffix(" -> None") == signature
    assert found.query is is_query


@pytest.mark.parametrize(
    ("call", "of"),
    [
        (mesh.AsyncClient.call, {"timeout", "idempotency_key", "priority", "metadata"}),
        (Client.call, {"timeout", "idempotency_key", "priority", "metadata"}),
        (Client.submit, {"timeout", "idempotency_key", "priority", "metadata"}),
        (mesh.AsyncClient.outcome, {"timeout"}),
        (Client.outcome, {"timeout"}),
    ],
)
def test_a_call_has_its_options_and_ten_seconds(call, of):
    assert options(call).keys() == of
    assert options(call)["timeout"] == 10.0


@pytest.mark.parametrize(
    "name", ["call", "entity", "outcome", "delete", "exists", "keys", "stats", "close"]
)
def test_both_clients_are_asked_alike(name):
    asked = [inspect.signature(getattr(kind, name)) for kind in (mesh.AsyncClient, Client)]
    awaited, blocking = (
        [(p.name, p.kind, p.default) for p in s.parameters.values()] for s in asked
    )
    assert awaited == blocking


@pytest.mark.parametrize(
    ("error", "executed", "also"),
    [
        (mesh.EntityError, True, Exception),
        (mesh.BadRequest, False, Exception),
        (mesh.Overloaded, False, Exception),
        (mesh.CircuitOpen, False, Exception),
        (mesh.Unavailable, False, ConnectionError),
        (mesh.DeadlineExceeded, False, TimeoutError),
        (mesh.OutcomeUnknown, None, TimeoutError),
        (mesh.IdempotencyConflict, False, Exception),
        (mesh.AuthenticationError, False, Exception),
    ],
)
def test_an_error_is_what_it_is_caught_as_and_says_whether_it_ran(error, executed, also):
    assert issubclass(error, mesh.MeshError) and issubclass(error, also)
    more = {"type": "E", "details": [1]} if error is mesh.EntityError else {}
    made = error("why", **more)
    assert (made.executed, made.idempotency_key, made.message) == (executed, None, "why")
    assert (made.handler, made.partition, made.epoch) == (None, None, None)
    if more:
        assert (made.type, made.details) == ("E", [1])
    if issubclass(error, mesh.Overloaded):
        assert error("why", retry_after=2.5).retry_after == 2.5


# ----------------------------------------------------------------------- command line


def parser_of(command: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    import_module(f"mesh.cli.{command}").add(parser)
    return parser


def test_mesh_up_takes_every_flag_under_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other.toml").touch()
    line = (
        "--name m --handlers 3 --partitions 64 --app bank:Account,Order --store redis+sentinel://a:1/b "
        "--ray auto --port 7400 --data-dir d --config other.toml --detach --json"
    )
    arguments = parser_of("up").parse_args(line.split())
    assert arguments.detach is True and arguments.json is True
    assert layers_of(arguments).config() == MeshConfig(
        name="m",
        handlers=3,
        partitions=64,
        app="bank:Account,Order",
        store="redis+sentinel://a:1/b",
        ray="auto",
        data_dir="d",
    )


@pytest.mark.parametrize("ray", ["local", "auto", "10.0.0.1:6379"])
@pytest.mark.parametrize("store", ["embedded", "redis://a:1", "redis+sentinel://a:1/b"])
def test_rays_and_stores_are_named_in_three_ways_each(ray, store):
    assert MeshConfig(ray=ray, store=store).ray == ray


def test_without_a_flag_it_is_the_mesh_that_is_promised():
    config = MeshConfig()
    assert (config.name, config.host, config.port) == ("default", "127.0.0.1", 7400)
    assert (config.store, config.ray, config.app) == ("embedded", "local", "")
    assert (config.timeout, config.idempotency_window_s) == (10.0, 24 * 3600.0)
    assert (config.max_state_bytes, config.max_reply_bytes) == (1024 * 1024, 1024 * 1024)
    assert (config.partitions, DEFAULT_PARTITIONS) == (None, 256)


@pytest.mark.parametrize(
    ("command", "more"),
    [
        ("status", []),
        ("events", []),
        ("keys", ["KV"]),
        ("call", ["KV.get", "k"]),
        ("config", ["show"]),
    ],
)
def test_every_reading_command_takes_json_and_a_name(command, more):
    arguments = parser_of(command).parse_args([*more, "--json", "--name", "shop"])
    assert (arguments.json, arguments.name) == (True, "shop")


def test_events_can_be_followed_and_a_mesh_be_ended_by_name():
    assert parser_of("events").parse_args(["--follow"]).follow is True
    assert parser_of("down").parse_args(["--name", "shop"]).name == "shop"


def test_the_demo_takes_its_flags():
    asked = parser_of("demo").parse_args(["--handlers", "3", "--kills", "2"])
    assert (asked.handlers, asked.kills) == (3, 2)
    assert vars(parser_of("demo").parse_args([])).keys() == {"handlers", "kills"}


@pytest.mark.parametrize(
    ("verdict", "code", "says"),
    [
        (Verdict(calls=5, acknowledged=5), 0, "verdict: every call was answered"),
        (Verdict(calls=5, acknowledged=5, lost=1), 1, "verdict: a promise was broken"),
        (Verdict(calls=5, acknowledged=5, doubled=1), 1, "verdict: a promise was broken"),
        (
            Verdict(5, 4, not_executed=1, errors=Counter({"Unavailable (not executed)": 1})),
            1,
            "verdict: some calls failed",
        ),
    ],
)
def test_the_demo_fails_when_anything_was_lost(verdict, code, says, capsys):
    assert _conclude(verdict) == code
    assert says in capsys.readouterr().out


STATUS = {
    "name": "m",
    "endpoints": ["127.0.0.1:1"],
    "partitions": 8,
    "table_version": [1, 3, 7],
    "store_life": 1,
    "supervisors": [],
    "wardens": [],
    "handlers": [],
    "outcomes": {"done": 0},
    "log": "l",
}


@pytest.mark.parametrize("failover", ["none", "sentinel"])
def test_a_store_without_a_failover_of_its_own_is_shown_as_such(failover):
    store = {"kind": "external", "address": "redis://a:1", "failover": failover, "in_sync": []}
    shown = render({**STATUS, "store": store})
    assert ("redis://a:1, no failover of its own" in shown) == (failover == "none")


def test_a_handlers_state_is_one_of_those_that_programs_know():
    member = Member(HandlerRow("h-0", b"n", "127.0.0.1", 1), 1, "w-0", 1.0, 0.0)
    states = [member.state]
    for change in ({"enrolled": True}, {"connected": False}, {"gone_at": 1.0}):
        for field, value in change.items():
            setattr(member, field, value)
        states.append(member.state)
    assert states == ["starting", "alive", "suspect", "dead"]
