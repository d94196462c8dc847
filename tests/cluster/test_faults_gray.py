"""A handler that lives, and is slow or fails its calls, on real processes under load.

It loses its partitions within five seconds and keeps its life, nobody else loses any, and it has its share
again once it is well.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hurting import Hurt, hurt_mesh, some_calls, until
from sickly import FOLDER_VARIABLE, switch

import mesh
from mesh.net import clock
from mesh.testing.load import OpenLoop
from mesh.testing.watch import Watch

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(300)]

MOVED_S = 5.0
BACK_S = 60.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gray")


@pytest.fixture(scope="module")
def hurt(folder: Path) -> Iterator[Hurt]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(FOLDER_VARIABLE, str(folder))
        with hurt_mesh(folder, f"gray-{os.getpid()}", handlers=4, app="sickly:Sickly") as hurt:
            yield hurt


@pytest.fixture
async def watch(hurt: Hurt) -> AsyncIterator[Watch]:
    async with hurt.watched() as watch:
        yield watch


@pytest.mark.parametrize("how", ["slow", "failing"])
async def test_an_ill_handler_loses_its_partitions_in_seconds_and_has_them_back_once_it_is_well(
    how: str, hurt: Hurt, watch: Watch, folder: Path
) -> None:
    async with await mesh.connect(*hurt.addresses) as client:
        load = OpenLoop(client, rate=400, keys=300, prefix=f"{how}-", entity="Sickly")
        await load.start()
        try:
            await some_calls(load, 1000)
            victim = watch.latest["handlers"][1]
            ill = switch(folder, how, victim["pid"])
            ill.touch()
            began, since = clock.wall(), clock.now()
            moved_s = await until(lambda: watch.moved_s(since, [victim["process"]]), 2 * MOVED_S)
            ill.unlink()
            await until(lambda: watch.is_even, BACK_S)
        finally:
            await load.stop()
        verdict = await load.verdict()
    assert moved_s <= MOVED_S
    assert verdict.kept
    assert verdict.not_executed == 0
    assert all(error.startswith("EntityError") for error in verdict.errors), verdict.errors
    assert victim["process"] in {h["process"] for h in watch.latest["handlers"]}
    events = [e for e in await watch.gather_events() if e["at"] >= began]
    assert not [e for e in events if e["kind"] == "failover"]
    weights = [e for e in events if e["kind"] == "handler_weight"]
    assert {e["handler"] for e in weights if e["why"] == "gray"} == {victim["id"]}
    own = [round(e["weight"], 3) for e in weights if e["handler"] == victim["id"]]
    assert (own[:3], own[-1]) == ([0.9, 0.5, 0.0], 1.0)
