"""One mesh on real Ray for the whole folder; who needs one of their own says so.

The fixture that starts it is synchronous: it outlives the event loops of the tests.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from running import HANDLERS, MESH, Cluster, Run, write_app

import mesh
from mesh.client.aio import AsyncClient
from mesh.client.tool import Tool
from mesh.config import MeshConfig
from mesh.launch import Launched, launch


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launched]:
    folder = tmp_path_factory.mktemp("shared")
    write_app(folder)
    config = MeshConfig(
        name=f"shared-{os.getpid()}",
        handlers=HANDLERS,
        app="bank:Account",
        port=0,
        dashboard=False,
        data_dir=str(folder / "data"),
    )
    with contextlib.chdir(folder):
        launched = launch(config)
    yield launched
    launched.stop()


@pytest.fixture
def name(shared: Launched) -> str:
    return str(shared.status["name"])


@pytest.fixture
async def cluster(shared: Launched) -> AsyncIterator[Cluster]:
    """The shared mesh, whole."""
    tool = await Tool.open(shared.endpoint)
    cluster = Cluster(tool)
    await cluster.ready()
    yield cluster
    tool.close()


@pytest.fixture
async def client(shared: Launched) -> AsyncIterator[AsyncClient]:
    async with await mesh.connect(shared.endpoint) as client:
        yield client


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run `mesh` with these arguments, from an empty folder."""

    def run(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [MESH, *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert done.returncode == code, done
        assert "Traceback" not in done.stdout + done.stderr
        return done

    return run


@pytest.fixture
def fails(run: Run) -> Callable[..., str]:
    """Run `mesh` with a mistake; the one line that it says of it."""

    def fails(*arguments: str) -> str:
        done = run(*arguments, code=1)
        assert done.stdout == ""
        [line] = done.stderr.splitlines()
        assert line.startswith(f"mesh {arguments[0]}: ")
        return line

    return fails
