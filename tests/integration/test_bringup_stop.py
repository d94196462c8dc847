"""Taking a mesh down goes on with the rest when one part of it fails."""

from __future__ import annotations

import pytest

from mesh import rundir
from mesh.bringup import RunningMesh
from mesh.config import MeshConfig


class Ended:
    """In place of a store: says whether it was told to end."""

    stopped = False

    async def stop(self) -> None:
        self.stopped = True


async def test_a_ray_that_cannot_be_stopped_leaves_neither_store_nor_folder(monkeypatch):
    mesh = RunningMesh(MeshConfig(name="half-way-down"))
    store = mesh._store = Ended()

    def fail():
        raise RuntimeError("Ray does not answer")

    monkeypatch.setattr(mesh, "_stop_ray", fail)
    with pytest.raises(RuntimeError, match="Ray does not answer"):
        await mesh.stop()
    assert store.stopped
    assert rundir.read("half-way-down") is None
    assert not mesh._run_dir.path.exists()
