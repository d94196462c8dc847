"""Every call to Ray, in one file. Ray starts, places, names and shows the processes; nothing else.

None of it lies on the path of a request or of a takeover: an async actor call costs over a millisecond, and
`ray.kill` of a stopped process five seconds.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError

from actors import names, priority
from actors.spec import Spec
from mesh.errors import SetupError

_OBJECT_STORE_BYTES = 100 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class RayInfo:
    """The Ray that a mesh runs in. `started` tells whether it is ours to stop."""

    address: str
    dashboard: str | None
    started: bool


def connect(mesh: str, address: str, *, dashboard: bool, temp_dir: str) -> RayInfo:
    """Start a Ray on this machine ("local"), or join one ("auto" or its address).

    Args:
        mesh: gives the namespace.
        temp_dir: where a Ray of our own keeps its session; short, since it holds sockets.

    Raises:
        SetupError: it cannot be started, or not be reached.
    """
    local = address == "local"
    # Ray runs workers at niceness 15 unless told otherwise. The handlers are the service:
    # with six busy processes on two cores, noticing a death takes 170-570 ms at 15, 20-26 ms at 0.
    os.environ.setdefault("RAY_worker_niceness", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Its notes (about tokens, threads, addresses) are not for who starts a mesh.
    logging.getLogger("ray").setLevel(logging.ERROR)
    try:
        context = ray.init(
            address=address,
            namespace=names.namespace(mesh),
            log_to_driver=False,
            logging_level=logging.ERROR,
            configure_logging=False,
            **(
                {
                    "num_cpus": 1,
                    "num_gpus": 0,
                    "include_dashboard": dashboard,
                    "object_store_memory": _OBJECT_STORE_BYTES,
                    "_temp_dir": temp_dir,
                    "_node_ip_address": "127.0.0.1",
                }
                if local
                else {}
            ),
        )
    except (RayError, ConnectionError, RuntimeError, ValueError, OSError) as error:
        if address == "auto" and isinstance(error, ConnectionError):
            raise SetupError(
                "--ray auto: no Ray runs on this machine; start one with `ray start --head`, name its "
                "address with --ray HOST:PORT, or use --ray local"
            ) from error
        what = "Ray could not be started" if local else f"no Ray was reached at {address!r}"
        raise SetupError(f"{what}: {error}") from error
    if local:
        priority.let_services_yield()
    info: dict[str, Any] = context.address_info
    url = info.get("webui_url")
    return RayInfo(info["gcs_address"], f"http://{url}" if url else None, local)


def create_handler(mesh: str, id: str) -> Any:
    """Begin a handler's process. It lives on when its creator dies."""
    from actors.handler import HandlerActor

    return _create(HandlerActor, mesh, names.handler(id), id)


def create_supervisor(mesh: str, id: str) -> Any:
    """Begin a supervisor's process."""
    from actors.supervisor import SupervisorActor

    return _create(SupervisorActor, mesh, names.supervisor(id), id)


def create_warden(mesh: str, id: str) -> Any:
    """Begin a warden's process on this node."""
    from actors.warden import WardenActor

    return _create(WardenActor, mesh, names.warden(id), id)


def _create(cls: type, mesh: str, name: str, id: str) -> Any:
    try:
        return (
            ray.remote(cls)
            .options(
                name=name,
                namespace=names.namespace(mesh),
                lifetime="detached",
                num_cpus=0,
                max_restarts=0,
                max_task_retries=0,
            )
            .remote(id)
        )
    except (RayError, ValueError) as error:
        raise SetupError(f"actor {name!r} could not be created: {error}") from error


async def start(handle: Any, spec: Spec) -> int:
    """Call a handler's or warden's `start`, then leave its `run` to itself; returns its pid."""
    pid: int = await call(handle, "start", spec)
    leave_running(handle)
    return pid


async def call(handle: Any, method: str, *args: Any) -> Any:
    """Call an actor's method.

    Raises:
        MeshError: as the method raised it; SetupError where the actor itself failed.
    """
    try:
        return await getattr(handle, method).remote(*args)
    except RayError as error:
        cause = getattr(error, "cause", None)
        if isinstance(cause, SetupError):
            raise SetupError(cause.message) from error
        raise SetupError(f"{handle!r}.{method} failed: {error}") from error


async def leave_when(ended: Awaitable[object]) -> None:
    """Within an actor's `run`: wait, then end this actor's process in good order."""
    await ended
    ray.actor.exit_actor()


def settle_memory() -> None:
    """Take what was made at the start out of the collector's sight.

    A full collection goes through all that Ray and the imports bring along while calls wait; none of
    it is ever garbage.
    """
    gc.collect()
    gc.freeze()


def leave_running(handle: Any) -> None:
    """Begin an actor's `run`; nobody waits for it."""
    handle.run.remote()


def kill(handle: Any) -> None:
    """End an actor that does not come up, so that its name is free. May block for seconds."""
    with contextlib.suppress(ValueError, RayError):
        ray.kill(handle, no_restart=True)


def kill_named(mesh: str, name: str) -> None:
    """End whoever holds that name, if anyone does. May block for seconds."""
    with contextlib.suppress(ValueError, RayError):
        ray.kill(ray.get_actor(name, names.namespace(mesh)), no_restart=True)


def kill_all(mesh: str) -> None:
    """End every actor of the mesh that is still there."""
    for entry in ray.util.list_named_actors(all_namespaces=True):
        if entry["namespace"] == names.namespace(mesh):
            kill_named(mesh, entry["name"])


def disconnect() -> None:
    """Leave Ray; one that `connect` started ends with it."""
    ray.shutdown()
