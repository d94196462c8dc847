"""What keeps a mesh from coming up is told at once, with the way out, and leaves nothing behind. No Ray."""

from __future__ import annotations

import asyncio
import json
import socket
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray

from actors import runtime
from actors.reach import check_ray
from mesh import rundir
from mesh.bringup import RunningMesh, up
from mesh.config import MeshConfig
from mesh.errors import SetupError
from mesh.store.embedded import EmbeddedStore
from mesh.store.folder import StoreFolder

NAME = "bad-start"


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """What who brings such a mesh up is told."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)

    async def refused(**settings: Any) -> str:
        said: list[str] = []
        settings = {"name": NAME, "port": 0, "data_dir": str(tmp_path / "data"), **settings}
        with pytest.raises(SetupError) as caught:
            await up(MeshConfig(**settings), progress=said.append)
        assert said == [], "nothing is started for what cannot work"
        assert not ray.is_initialized()
        assert rundir.read(NAME) is None
        return str(caught.value)

    return refused


@pytest.fixture
def taken_port():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        yield int(taken.getsockname()[1])


# ------------------------------------------------------------------------ name


async def test_a_second_mesh_of_a_name_is_refused_and_the_first_stays_as_it_is(tmp_path):
    first = RunningMesh(MeshConfig(name=NAME))
    try:
        state = {"name": NAME, "pid": 4711, "endpoints": ["127.0.0.1:7400"], "token": "t"}
        first._run_dir.write(state)
        with pytest.raises(SetupError) as caught:
            await up(MeshConfig(name=NAME, port=0, data_dir=str(tmp_path)))
        assert str(caught.value) == (
            f"a mesh named '{NAME}' runs already (pid 4711, 127.0.0.1:7400); it was left as it is. "
            f"End it with: mesh down --name {NAME}"
        )
        assert rundir.read(NAME) == state
    finally:
        await first.stop()


async def test_without_a_place_for_its_address_it_says_where_that_should_be(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(SetupError, match=r"cannot be made: No such file.*; set TMPDIR to a folder"):
        await up(MeshConfig(name=NAME, port=0, data_dir=str(tmp_path)))


# ------------------------------------------------------------------------ port


async def test_a_port_that_is_taken_is_named(refused, taken_port):
    said = await refused(port=taken_port)
    assert said.startswith(f"cannot listen on 127.0.0.1:{taken_port}: ")
    assert said.endswith("; choose another port")


async def test_an_address_of_another_machine_is_named(refused):
    said = await refused(host="192.0.2.1", token="t")
    assert "cannot listen on 192.0.2.1:0: " in said


async def test_an_address_that_others_reach_wants_a_token():
    with pytest.raises(SetupError, match=r"0\.0\.0\.0 can be reached from other machines: set a"):
        MeshConfig(host="0.0.0.0")


# ----------------------------------------------------------------- application


@pytest.mark.parametrize(
    ("app", "source", "said"),
    [
        ("nowhere_1", None, "importing 'nowhere_1' failed: ModuleNotFoundError: No module named"),
        ("nowhere_2", None, "it is looked for in /"),
        ("broken_1", "import os\n1 / 0\n", "broken_1.py, line 2: ZeroDivisionError: division"),
        ("broken_2", "def f(:\n", "SyntaxError: invalid syntax (broken_2.py, line 1)"),
        ("broken_3", "raise SystemExit(3)\n", "broken_3.py, line 1: SystemExit: 3"),
        ("broken_4", "import nowhere_4\n", "broken_4.py, line 1: ModuleNotFoundError"),
        ("empty_1", "", "'empty_1' defines no @mesh.entity class"),
        ("empty_2:Nobody", "", "'empty_2' has no Nobody"),
        ("plain_1:C", "class C:\n    pass\n", "C is not an entity; decorate it with @mesh.entity"),
        (
            "twice_1",
            "import mesh\n\n\n@mesh.entity(name='KV')\nclass Own:\n    n: int = 0\n",
            "KV",
        ),
    ],
)
async def test_an_application_that_cannot_be_served_is_told_with_its_line(
    refused, tmp_path, monkeypatch, app, source, said
):
    monkeypatch.syspath_prepend(tmp_path)
    if source is not None:
        (tmp_path / f"{app.partition(':')[0]}.py").write_text(source)
    assert said in await refused(app=app)


# ----------------------------------------------------------------- data folder


@pytest.mark.parametrize(("mesh", "partitions"), [("other", 64), (NAME, 128)])
async def test_a_folder_of_another_mesh_is_left_as_it_is(refused, tmp_path, mesh, partitions):
    folder = tmp_path / "data"
    folder.mkdir()
    state = {"mesh": mesh, "partitions": partitions, "node_ports": [], "sentinel_ports": []}
    (folder / "store.json").write_text(json.dumps(state))
    assert await refused(partitions=64) == (
        f"data folder {folder} holds mesh {mesh!r} with {partitions} partitions, not {NAME!r} with "
        f"64: name the right one, or another folder"
    )
    assert json.loads((folder / "store.json").read_text()) == state


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"mesh": "m"}'])
async def test_a_folder_that_is_damaged_is_told_and_left_as_it_is(refused, tmp_path, text):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "store.json").write_text(text)
    said = await refused()
    assert said.startswith(f"{folder / 'store.json'} is damaged (")
    assert said.endswith("): put it back from a backup, or name another folder")
    assert (folder / "store.json").read_text() == text


async def test_a_folder_that_is_none_is_told(refused, tmp_path):
    (tmp_path / "data").write_text("a file")
    said = await refused()
    assert f"data folder {tmp_path / 'data'} cannot be used: " in said
    assert "name another one with --data-dir" in said


async def test_a_folder_in_use_names_who_uses_it(refused, tmp_path):
    holder = StoreFolder.open(tmp_path / "data")
    try:
        said = await refused()
    finally:
        holder.close()
    assert f"data folder {tmp_path / 'data'} is in use by the mesh of process " in said


async def test_a_check_leaves_the_folder_free(tmp_path):
    store = EmbeddedStore(tmp_path / "data")
    await store.check()
    await store.check()
    StoreFolder.open(tmp_path / "data").close()


# ------------------------------------------------------------------------- Ray


async def test_a_ray_that_nobody_runs_is_told_at_once(refused, taken_port):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert await refused(ray=f"127.0.0.1:{port}") == (
        f"--ray 127.0.0.1:{port}: no Ray was reached, nothing listens there; start one with "
        f"`ray start --head`, name another address with --ray, or use --ray local"
    )


async def test_an_address_of_ray_from_the_environment_is_named_as_such(refused, monkeypatch):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    monkeypatch.setenv("RAY_ADDRESS", address)
    assert f"--ray auto (RAY_ADDRESS={address}): no Ray was reached" in await refused(ray="auto")


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b""])
async def test_what_listens_and_is_no_ray_is_told_as_that(refused, answer):
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        said = await refused(ray=f"127.0.0.1:{port}")
    assert said.startswith(f"--ray 127.0.0.1:{port}: what listens there is no Ray; start one with")


def test_a_ray_that_accepts_and_stays_silent_is_given_up(taken_port):
    with pytest.raises(SetupError, match=r"no Ray was reached, no answer within 0\.1 s"):
        check_ray(f"127.0.0.1:{taken_port}", within_s=0.1)


def test_what_speaks_grpc_passes_for_a_ray():
    settings = b"\0\0\0\x04\0\0\0\0\0"
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            peer, _ = server.accept()
            with peer:
                peer.recv(100)
                peer.sendall(settings)

        thread = threading.Thread(target=answer)
        thread.start()
        check_ray(f"127.0.0.1:{server.getsockname()[1]}", within_s=5)
        thread.join()


def test_without_any_ray_auto_says_how_to_get_one(monkeypatch):
    def init(**_: Any) -> None:
        raise ConnectionError("Could not find any running Ray instance.")

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(SetupError, match="no Ray runs on this machine; start one with `ray start"):
        runtime.connect(NAME, "auto", dashboard=False, temp_dir="unused")
