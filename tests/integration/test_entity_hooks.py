"""What an entity brings along into each handler process, and how it says that it is not well."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from mesh_in_process import InProcess

import mesh
from mesh.cli.status import render
from mesh.entities import Registry
from mesh.errors import SetupError
from mesh.resources import Resources

happened: list[str] = []
ill: dict[str, Any] = {}


@mesh.entity
class Shop:
    sold: int = 0

    async def on_start(cls, resources):  # noqa: N805 - a hook takes its class
        await asyncio.sleep(0)
        resources["pool"] = f"pool of {cls.__name__}"
        happened.append("Shop starts")

    def on_stop(cls, resources):  # noqa: N805 - a hook takes its class
        happened.append(f"Shop stops with its {resources['pool']}")

    @mesh.health
    async def is_stocked(cls, resources):  # noqa: N805 - a hook takes its class
        if ill.get("stock"):
            raise LookupError(f"{resources['pool']} is empty")

    @mesh.health
    @classmethod
    def is_open(cls, resources):
        wait = ill.get("wait")
        if wait is not None:
            wait.wait(10)
        return not ill.get("closed")

    @mesh.command
    def sell(self) -> str:
        self.sold += 1
        return mesh.context().resources["pool"]


@pytest.fixture(autouse=True)
def fresh():
    happened.clear()
    ill.clear()


def resources_of(*classes, health_s=0.1):
    return Resources(Registry(classes).specs, {}, health_s)


async def test_hooks_run_once_for_each_handler_and_methods_have_what_they_made():
    async with InProcess(2, app=[Shop]) as meshed:
        assert happened == ["Shop starts"] * 2
        client = await meshed.connect()
        assert await client.call(Shop.sell, "a") == "pool of Shop"
        assert await client.call("KV.incr", "a") == 1
    assert happened[2:] == ["Shop stops with its pool of Shop"] * 2


async def test_a_handler_that_is_killed_cleans_up_nothing_and_its_replacement_starts_anew():
    async with InProcess(2, app=[Shop]) as meshed:
        dead = await meshed.kill("h-0")
        await meshed.replaced("h-0", dead)
        assert happened == ["Shop starts"] * 3
    assert happened[3:] == ["Shop stops with its pool of Shop"] * 2


async def test_an_on_start_that_fails_keeps_the_handler_from_starting_and_says_why():
    @mesh.entity
    class Broken:
        @classmethod
        async def on_start(cls, resources):
            raise ConnectionError("no database at db:5432")

    meshed = InProcess(1, app=[Shop, Broken], replaces=False)
    with pytest.raises(
        SetupError, match=r"on_start of Broken failed.*ConnectionError: no database"
    ):
        await meshed.__aenter__()
    assert happened == ["Shop starts", "Shop stops with its pool of Shop"]


async def test_an_on_stop_that_fails_is_logged_and_the_others_are_stopped_too(caplog):
    @mesh.entity
    class Sloppy:
        @classmethod
        def on_stop(cls, resources):
            raise OSError("cannot flush")

    both = resources_of(Shop, Sloppy)
    await both.start()
    await both.stop()
    assert "on_stop of Sloppy failed" in caplog.text and "cannot flush" in caplog.text
    assert happened[-1] == "Shop stops with its pool of Shop"


async def test_health_is_ok_until_a_check_raises_returns_false_or_does_not_answer():
    shop = resources_of(Shop)
    await shop.start()
    assert await shop.check() == "ok"
    ill["stock"] = True
    assert await shop.check() == "Shop.is_stocked: LookupError: pool of Shop is empty"
    ill["closed"] = True
    assert (await shop.check()).endswith("; Shop.is_open returned False")
    ill.clear()
    ill["wait"] = threading.Event()
    late = "Shop.is_open has not answered within 0.1 s"
    assert await shop.check() == late
    assert await shop.check() == late, "and is not asked a second time meanwhile"
    assert shop._threads._made == 1
    ill.pop("wait").set()
    while await shop.check() != "ok":
        pass
    await shop.stop()


async def test_a_change_of_health_is_logged_once(caplog):
    caplog.set_level("INFO")
    shop = resources_of(Shop, health_s=0.01)
    await shop.start()
    ill["stock"] = True
    watching = asyncio.create_task(shop.watch())
    try:
        async with asyncio.timeout(5):
            while shop.health == "ok":  # noqa: ASYNC110 - no event tells
                await asyncio.sleep(0)
            for _ in range(3):
                await shop.check()
            ill.clear()
            while shop.health != "ok":  # noqa: ASYNC110 - no event tells
                await asyncio.sleep(0)
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        await shop.stop()
    assert caplog.text.count("pool of Shop is empty") == 1
    assert caplog.text.count("well again") == 1


async def test_status_shows_which_handler_is_not_well_and_why():
    async with InProcess(2, app=[Shop]) as meshed:
        assert [h["health"] for h in meshed.status()["handlers"]] == ["ok", "ok"]
        ill["stock"] = True
        why = "Shop.is_stocked: LookupError: pool of Shop is empty"
        await meshed.until(lambda: {h["health"] for h in meshed.status()["handlers"]} == {why})
        assert f"not well: {why}" in render(dict(meshed.status()))
        client = await meshed.connect()
        assert await client.call(Shop.sell, "a") == "pool of Shop", "it goes on serving"


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("on_start", 5, "a function of \\(cls, resources\\), not 5"),
        ("on_start", lambda: None, "is called with \\(cls, resources\\)"),
        ("on_stop", mesh.command(lambda self: None), "name it otherwise"),
        ("check", mesh.health(lambda cls: None), "is called with \\(cls, resources\\)"),
    ],
)
def test_a_hook_that_cannot_be_called_is_refused_with_its_class(name, value, says):
    with pytest.raises(SetupError, match=rf"E\.{name}.*{says}"):
        mesh.entity(type("E", (), {name: value}))


def test_a_health_check_has_to_be_a_function():
    with pytest.raises(SetupError, match="a health check is a function of the class, not 5"):
        mesh.health(5)
