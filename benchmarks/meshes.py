"""The mesh that benchmarks.faults hurts; another one where that one does not come to itself again."""

from __future__ import annotations

import argparse
import contextlib
import os
import tempfile
from pathlib import Path

from benchmarks.arena import say
from benchmarks.faulty import FOLDER_VARIABLE
from mesh.config import MeshConfig
from mesh.errors import MeshError
from mesh.launch import Launched, launch
from mesh.testing.lasting import LastingStore
from mesh.testing.watch import Status


class Meshes:
    """The mesh that is hurt; another one where that one does not come to itself again."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._stack = contextlib.ExitStack()
        self._mesh: Launched | None = None
        self.folder = Path()
        self.store: LastingStore | None = None
        """The mesh's, where it is the benchmark's own."""
        self.status: Status = {}
        self.started = 0

    def current(self) -> Status:
        """The status of a mesh that runs; it is started if need be."""
        if self._mesh is None:
            self.started += 1
            name = f"faults-{os.getpid()}-{self.started}"
            self.folder = Path(
                self._stack.enter_context(tempfile.TemporaryDirectory(prefix="raymesh-bench-"))
            )
            os.environ[FOLDER_VARIABLE] = str(self.folder)
            say(f"starting mesh {name}")
            config = MeshConfig(
                name=name,
                handlers=self._options.handlers,
                app="benchmarks.faulty:Faulty",
                port=0,
                data_dir=str(self.folder / "data"),
                dashboard=False,
                **self._own_store(name),
            )
            self._mesh = launch(config)
            self._stack.callback(self._end, self._mesh)
            self.status = self._mesh.status
        return self.status

    def _own_store(self, name: str) -> dict[str, str]:
        """Start a store whose Sentinels wait as long as was asked for; what the mesh is told of it."""
        if self._options.down_after is None:
            return {}
        folder = self.folder / "store"
        store = LastingStore(folder, mesh=name, down_after_ms=self._options.down_after)
        self.store = self._stack.enter_context(store)
        return {"store": store.url, "store_password": store.password}

    def addresses(self) -> list[str]:
        """Where clients find it."""
        rows = (*self.status["supervisors"], *self.status["handlers"])
        return [f"{row['host']}:{row['port']}" for row in rows]

    def leave(self) -> None:
        """End it; the next one is new."""
        self._stack.close()
        self._mesh = self.store = None

    @staticmethod
    def _end(mesh: Launched) -> None:
        try:
            mesh.stop()
        except MeshError as error:
            say(f"{error}; it is killed, and its processes end with it")
            mesh.process.kill()
            mesh.process.wait()
