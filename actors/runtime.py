"""Every call to Ray, in one file. Ray starts, places, names and shows the processes; nothing else.

None of it lies on the path of a request or of a takeover: an async actor call costs over a millisecond, and
`ray.kill` of a stopped process five seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import pickle
import time
from collections.abc import Awaitable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError
from ray.experimental import internal_kv
from ray.util import get_placement_group, placement_group

from actors import names, priority
from actors.spec import Spec
from mesh.errors import MeshError, SetupError

_OBJECT_STORE_BYTES = 100 * 1024 * 1024
_LOOK_S = 2.0
_ANSWER_S = 5.0
_MOST_ENDPOINTS = 5
_END_S, _AGAIN_S = 30.0, 0.1

log = logging.getLogger("mesh.ray")


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
    except Exception as error:
        # Also bare ones: Ray raises one where a service of it does not come up in time.
        if address == "auto" and isinstance(error, ConnectionError):
            raise SetupError(
                "--ray auto: no Ray runs on this machine; start one with `ray start --head`, name its "
                "address with --ray HOST:PORT, or use --ray local"
            ) from error
        if "InvalidAuthToken" in "".join(map(str, _causes(error))):
            raise SetupError(
                f"the Ray at {address} wants its token: set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN where "
                f"the token does not lie in ~/.ray/auth_token"
            ) from error
        what = "Ray could not be started" if local else f"no Ray was reached at {address!r}"
        raise SetupError(f"{what}: {error}") from error
    if local:
        priority.let_services_yield()
    info: dict[str, Any] = context.address_info
    url = info.get("webui_url")
    return RayInfo(info["gcs_address"], f"http://{url}" if url else None, local)


def claim(mesh: str, address: str) -> None:
    """Make sure that nobody else's mesh of that name is in the Ray that was joined.

    Raises:
        SetupError: there is one; it is left as it is.
    """
    there = _named(mesh)
    if there:
        raise SetupError(
            f"a mesh named {mesh!r} runs already in the Ray at {address} ({', '.join(there)}); it was "
            f"left as it is. End it with: mesh down --name {mesh} --ray {address}"
        )


def mark_owner() -> None:
    """Leave something in Ray that ends with this process, however that ends; see `end_with_owner`.

    Actors that end with their creator would be the obvious way, but a replacement is created by the
    supervisor, which may die and take nobody along. A placement group of nearly nothing ends with the
    driver that made it, within a second of a SIGKILL, and costs no process; that it may never be
    placed, in a cluster without a free CPU, does not matter.
    """
    placement_group([{"CPU": 0.001}], name=names.OWNER)


def end_with_owner(spec: Spec, ended: asyncio.Event) -> None:
    """Within an actor: set `ended` once the process that brought the mesh up is gone for certain."""
    if spec.owned:
        work = _watch_owner(spec.mesh, ended)
        task = asyncio.get_running_loop().create_task(work, name="owner")
        _watching.add(task)
        task.add_done_callback(_watching.discard)


_watching: set[asyncio.Task[None]] = set()


async def _watch_owner(mesh: str, ended: asyncio.Event) -> None:
    misses = 0
    while misses < 2:
        await asyncio.sleep(_LOOK_S)
        try:
            await asyncio.to_thread(get_placement_group, names.OWNER)
            misses = 0
        except ValueError:
            misses += 1
        except (RayError, RuntimeError, OSError) as error:
            # Ray does not answer: that says nothing of the owner, and calls need no Ray.
            log.debug("whether the owner is there cannot be asked: %s", error)
    log.warning("the process that brought this mesh up is gone; so is this one")
    with contextlib.suppress(RayError, RuntimeError, OSError):
        await asyncio.to_thread(forget, mesh)
    ended.set()


def endpoints(mesh: str) -> list[str]:
    """Where clients find the mesh of that name in the Ray that this process is connected to."""
    found: list[str] = []
    for name in sorted(_named(mesh), key=lambda name: not name.startswith("supervisor")):
        if len(found) < _MOST_ENDPOINTS and not name.startswith("warden"):
            # One that died, or is just coming up, has no address to tell.
            with contextlib.suppress(ValueError, RayError):
                actor = ray.get_actor(name, names.namespace(mesh))
                found.append(ray.get(actor.address.remote(), timeout=_ANSWER_S))
    return found


def is_connected() -> bool:
    """This process has joined a Ray."""
    return bool(ray.is_initialized())


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


_NEVER, _ALWAYS = 0, -1
"""How often Ray starts a process again in the place of one that died.

A handler never: its replacement is the leader's affair, which gives it a new grant. A supervisor or a warden
always: it has nothing that could be lost, and somebody has to do it when none of them is left.
"""


def create_handler(mesh: str, id: str) -> Any:
    """Begin a handler's process. It lives on when its creator dies."""
    from actors.handler import HandlerActor

    return _create(HandlerActor, mesh, names.handler(id), _NEVER, id)


def create_supervisor(mesh: str, id: str) -> Any:
    """Begin a supervisor's process; Ray starts it again whenever it dies."""
    from actors.supervisor import SupervisorActor

    return _create(SupervisorActor, mesh, names.supervisor(id), _ALWAYS, mesh, id)


def create_warden(mesh: str, id: str) -> Any:
    """Begin a warden's process on this node; Ray starts it again whenever it dies."""
    from actors.warden import WardenActor

    return _create(WardenActor, mesh, names.warden(id), _ALWAYS, mesh, id)


def _create(cls: type, mesh: str, name: str, restarts: int, *arguments: str) -> Any:
    try:
        return (
            ray.remote(cls)
            .options(
                name=name,
                namespace=names.namespace(mesh),
                lifetime="detached",
                num_cpus=0,
                max_restarts=restarts,
                max_task_retries=0,
            )
            .remote(*arguments)
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


def is_restarted() -> bool:
    """Within an actor's constructor: Ray has started this process in the place of one that died."""
    return is_connected() and bool(ray.get_runtime_context().was_current_actor_reconstructed)


def come_back(work: Coroutine[Any, Any, None], who: str) -> asyncio.Task[None]:
    """Within the constructor of an actor that Ray has started again: do this, then have it `run`.

    Where it fails, the process ends, and Ray starts another one.
    """

    async def come() -> None:
        try:
            await work
        except MeshError as error:
            log.error("%s does not come up again: %s", who, error)
            await asyncio.sleep(_LOOK_S)
            end_process()
        leave_running(ray.get_runtime_context().current_actor)

    return asyncio.get_running_loop().create_task(come(), name=f"{who} comes back")


def end_process() -> None:
    """Within an actor that has failed: end, for Ray to start another one in its place."""
    os._exit(1)


def keep(spec: Spec) -> None:
    """Leave a mesh's spec where actors find it that Ray starts again.

    Not as their constructor's arguments: large ones lie in the object store of whoever brought the mesh up,
    and are gone at the second restart.
    """
    internal_kv._internal_kv_put(_KEPT, pickle.dumps(spec), namespace=_kept_in(spec.mesh))


def recall(mesh: str) -> Spec:
    """The spec of the mesh that this actor belongs to.

    Raises:
        SetupError: nobody has left it yet; the mesh is still coming up, or is gone.
    """
    blob = internal_kv._internal_kv_get(_KEPT, namespace=_kept_in(mesh))
    if blob is None:
        raise SetupError(f"mesh {mesh!r} has left no spec in Ray")
    spec: Spec = pickle.loads(blob)  # noqa: S301 - our own, and Ray's arguments are pickled likewise
    return spec


def forget(mesh: str) -> None:
    """Leave nothing of the mesh in Ray that is no process."""
    internal_kv._internal_kv_del(_KEPT, namespace=_kept_in(mesh))


_KEPT = b"spec"


def _kept_in(mesh: str) -> bytes:
    return names.namespace(mesh).encode()


async def leave_when(ended: Awaitable[object]) -> None:
    """Within an actor's `run`: wait, then end this actor's process in good order."""
    await ended
    ray.actor.exit_actor()


def settle_memory() -> None:
    """Take what is there out of the collector's sight, garbage excepted.

    A full collection goes through all that Ray, the imports and the keys bring along while calls wait; next
    to none of it is ever garbage.
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


def kill_all(mesh: str) -> int:
    """End every actor of the mesh that is still there; returns how many.

    Supervisors first: one that lives starts another handler in the place of each that ends, and what it began
    to start shows up only after a while. So Ray is asked again until nobody is there.

    Raises:
        SetupError: some are there after half a minute.
    """
    ended: set[str] = set()
    deadline = time.monotonic() + _END_S
    while there := sorted(_named(mesh), key=lambda name: not name.startswith("supervisor")):
        if time.monotonic() > deadline:
            raise SetupError(f"actors of mesh {mesh!r} do not end: {', '.join(there)}")
        ended.update(there)
        for name in there:
            kill_named(mesh, name)
        time.sleep(_AGAIN_S)
    forget(mesh)
    return len(ended)


def _named(mesh: str) -> list[str]:
    everywhere = ray.util.list_named_actors(all_namespaces=True)
    return [e["name"] for e in everywhere if e["namespace"] == names.namespace(mesh)]


def disconnect() -> None:
    """Leave Ray; one that `connect` started ends with it."""
    ray.shutdown()
