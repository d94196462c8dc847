"""`mesh.local`, `mesh.up` and `mesh.down`: a mesh from Python, without the command line.

    local   everything on this machine, for as long as a block lasts; what a script or a notebook wants
    up      what `mesh up` does, with the same settings, also into a Ray cluster that runs
    down    ends what `up` has started, from any process of this user

All of it happens in a process of the mesh's own (mesh.launch), so the caller's event loop, signals and Ray
stay the caller's, and a caller that is killed leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import os
import secrets
import select
import signal
import sys
import tempfile
from collections.abc import Iterable, Sequence
from importlib.machinery import PathFinder
from types import TracebackType
from typing import TypedDict, Unpack

from mesh import rundir
from mesh.client.endpoints import ask_ray
from mesh.config import SETTINGS, MeshConfig
from mesh.entities import Registry
from mesh.errors import SetupError, Unavailable
from mesh.handles import LocalMesh, UpMesh
from mesh.launch import Launched, Launching, Progress

_DOWN_S = 60.0


class TimingSettings(TypedDict, total=False):
    """How patient a mesh is; unset ones come from the preset that `timing` names."""

    timing: str
    lease_s: float | None
    lease_margin_s: float | None
    renew_s: float | None
    lease_read_s: float | None
    beat_s: float | None
    missed_beats: int | None
    gray_clients: int | None
    probe_s: float | None
    kill_s: float | None
    proof_s: float | None
    slow_method_s: float | None
    gray_s: float | None
    gray_floor_s: float | None
    well_s: float | None


class Settings(TimingSettings, total=False):
    """What `mesh up` takes as flags; see `mesh.config.SETTINGS`, where each is described."""

    name: str
    handlers: int
    partitions: int | None
    supervisors: int
    host: str
    port: int
    token: str
    ray: str
    dashboard: bool
    data_dir: str | None
    health_port: int | None
    store: str
    store_password: str
    durability: str
    store_open_s: float
    store_connect_s: float
    store_wait_s: float
    store_reply_s: float
    idempotency_window_s: float
    idempotency_bytes: int
    max_pending: int
    cache_bytes: int
    history_bytes: int
    write_buffer_bytes: int
    hello_s: float
    unauthenticated: int
    restart_after_s: float
    method_limit_s: float
    threads: int
    health_s: float
    max_state_bytes: int
    max_reply_bytes: int
    log_level: str
    log_file: str | None


class Local:
    """A local mesh that is asked for: `async with` it in async code, `with` it in code that blocks."""

    def __init__(self, config: MeshConfig, carried: Sequence[type], progress: Progress) -> None:
        self._config = config
        self._carried = carried
        self._progress = progress
        self._running: LocalMesh | None = None

    def __repr__(self) -> str:
        return f"<mesh.local: {self._running or 'not entered'}>"

    def __enter__(self) -> LocalMesh:
        return self._hold(_launch(self._launching(), self._carried))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._running is not None:
            self._running.stop()

    async def __aenter__(self) -> LocalMesh:
        launching = self._launching()
        # Cancelled and awaited below.
        waiting = asyncio.get_running_loop().run_in_executor(
            None, _launch, launching, self._carried
        )
        try:
            return self._hold(await asyncio.shield(waiting))
        except asyncio.CancelledError:
            # Ctrl-C in asyncio.run comes here, too. The thread returns once the process has ended.
            await asyncio.shield(asyncio.to_thread(launching.abort))
            await asyncio.wait((waiting,))
            with contextlib.suppress(SetupError):
                waiting.result().stop()
            raise

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._running is not None:
            await self._running.close_clients()
            await asyncio.shield(asyncio.to_thread(self._running.stop))

    def _launching(self) -> Launching:
        return Launching(self._config, ephemeral=True, progress=self._progress)

    def _hold(self, launched: Launched) -> LocalMesh:
        self._running = LocalMesh(launched, token=self._config.token)
        return self._running


def local(
    *entities: type,
    handlers: int = 4,
    supervisors: int = 2,
    partitions: int | None = None,
    token: str = "",
    dashboard: bool = False,
    progress: Progress = lambda _: None,
) -> Local:
    """A whole mesh on this machine for as long as a block lasts: Ray, a replicated store, handlers.

        with mesh.local(Account) as m, m.client() as client:
            client.call(Account.deposit, "alice", 5)

    `m.client()` and `m.connect()` are closed with it. Its data lies in a temporary folder: however the
    block ends, and however this process does, nothing of it is left. It takes some seconds to start; for
    tests `mesh.testing.mesh` takes milliseconds.

    Args:
        entities: the classes it serves, beside KV; they may be defined in a script or a notebook.
        handlers: number of handler processes.
        supervisors: number of supervisor processes: one leads, the others stand by.
        partitions: of the key space; 256 by default.
        token: that clients have to know; its own clients do.
        dashboard: start Ray's dashboard, too.
        progress: gets a line for each step of the start, `print` for example.

    Raises:
        SetupError: an entity cannot be served, or, on entering, the mesh cannot be started.
    """
    whose = f"raymesh-local-{os.getpid()}-{secrets.token_hex(4)}"
    folder = os.path.join(tempfile.gettempdir(), whose)
    app, carried = _split(entities, shared_files=True)
    config = MeshConfig(
        name=f"local-{secrets.token_hex(4)}",
        handlers=handlers,
        supervisors=supervisors,
        partitions=partitions,
        app=app,
        port=0,
        token=token,
        dashboard=dashboard,
        data_dir=folder,
    )
    return Local(config, carried, progress)


def up(
    entities: Iterable[type] = (),
    *,
    app: str = "",
    detach: bool = True,
    progress: Progress = lambda _: None,
    **settings: Unpack[Settings],
) -> UpMesh:
    """Bring a mesh up, also into a running Ray cluster, as `mesh up` does; returns when it is ready.

        mesh.up([Account], ray="auto", store="redis://10.0.0.1,10.0.0.2")

    It blocks for some seconds; in async code: `await asyncio.to_thread(mesh.up, [Account])`.

    Args:
        entities: the classes it serves, beside KV and those of `app`.
        app: classes by name, "module:Class,Class", where handlers can import them.
        detach: it stays until `mesh.down`; False: it ends with this process, however that ends.
        progress: gets a line for each step of the start, `print` for example.
        settings: as the flags of `mesh up` (`ray=`, `store=`, `name=`, `handlers=`, ...), with the same
            defaults and bounds. Neither mesh.toml nor the environment is read.

    Raises:
        SetupError: a setting is wrong, a mesh of that name runs already (it is left as it is), or
            something of it cannot be started; then nothing of it is left.
    """
    unknown = [name for name in settings if name not in Settings.__annotations__]
    if unknown:
        close = difflib.get_close_matches(unknown[0], Settings.__annotations__, 1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise TypeError(f"up() got an unexpected setting {unknown[0]!r}{hint}")
    shared = settings.get("ray", SETTINGS["ray"].default) == "local"
    named, carried = _split(tuple(entities), shared_files=shared)
    config = MeshConfig(app=";".join(filter(None, (app, named))), **settings)
    launching = Launching(config, tethered=not detach, progress=progress)
    return UpMesh(_launch(launching, carried), token=config.token)


def down(name: str = "default", *, ray: str | None = None) -> None:
    """End a mesh that `up`, or `mesh up`, has brought up. A Ray that it joined goes on.

    Args:
        name: the mesh's.
        ray: address of the Ray that it was brought up in, to end what is left there of a mesh whose
            process on this machine is gone.

    Raises:
        SetupError: no mesh of that name runs, it is still starting, or it does not end.
    """
    state = rundir.read(name)
    if state is None:
        if ray is not None:
            try:
                if ask_ray(ray, name, "--end")["ended"]:
                    return
            except Unavailable as error:
                raise SetupError(
                    f"no mesh named {name!r} runs on this machine, and the Ray at {ray} was not asked: "
                    f"{error}"
                ) from error
        where = "on this machine" if ray is None else f"on this machine or in the Ray at {ray}"
        raise SetupError(f"no mesh named {name!r} runs {where}; there is nothing to end")
    pid = state.get("pid")
    if pid is None:
        raise SetupError(f"mesh {name!r} is still starting; try again in a few seconds")
    try:
        # A descriptor, not the number: it cannot come to mean another process while we wait.
        pidfd = os.pidfd_open(pid)
        signal.pidfd_send_signal(pidfd, signal.SIGTERM)
    except ProcessLookupError:
        raise SetupError(f"mesh {name!r} has just ended by itself") from None
    ended, _, _ = select.select([pidfd], [], [], _DOWN_S)
    os.close(pidfd)
    if not ended:
        raise SetupError(
            f"mesh {name!r} (pid {pid}) did not end within {_DOWN_S:g} s; "
            f"its processes may be stopped: look at `ps -p {pid}` and at {state.get('log')}"
        )


def _launch(launching: Launching, classes: Sequence[type]) -> Launched:
    """Start it and wait until it is ready."""
    try:
        launching.begin()
        carried = b""
        if classes:
            # Ray comes with it, and takes its time while the new process takes its own.
            from actors.carried import pack

            carried = pack(classes)
    except BaseException:
        launching.abort()
        raise
    return launching.wait(carried)


def _split(entities: Sequence[type], *, shared_files: bool) -> tuple[str, list[type]]:
    """Classes that the mesh's processes can import, as `app` names them; and those that they cannot."""
    Registry(entities)
    named: list[str] = []
    carried: list[type] = []
    for cls in dict.fromkeys(entities):
        if _can_import(cls, shared_files=shared_files):
            named.append(f"{cls.__module__}:{cls.__qualname__}")
        else:
            carried.append(cls)
    return ";".join(named), carried


def _can_import(cls: type, *, shared_files: bool) -> bool:
    module = sys.modules.get(cls.__module__)
    file = getattr(module, "__file__", None)
    if (
        cls.__module__ == "__main__"
        or file is None
        or getattr(module, cls.__qualname__, None) is not cls
    ):
        return False
    if not shared_files and "site-packages" not in file:
        return False  # a file of this machine; the cluster's may not have it
    top, _, _ = cls.__module__.partition(".")
    spec = PathFinder.find_spec(top)
    found = getattr(sys.modules.get(top), "__spec__", None)
    return spec is not None and found is not None and spec.origin == found.origin
