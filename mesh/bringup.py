"""Bringing a mesh up and down on this machine: the store, Ray, the actors, in this order of need.

The process that calls `up` owns everything it started. When it ends in good order it takes all of
it down; when it is killed, the store's processes die with their parent, Ray's own reaper ends the
rest, and in a Ray that was joined the actors notice that what stands there for this process is gone
(actors.runtime.mark_owner). Only a detached mesh on a store of its own outlives it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from actors import runtime
from actors.carried import unpack
from actors.reach import check_ray
from actors.spec import Spec
from mesh.app import load_app
from mesh.client.tool import ask
from mesh.config import MeshConfig
from mesh.entities import Registry
from mesh.errors import MeshError, SetupError
from mesh.net.listener import check_port
from mesh.rundir import RunDir
from mesh.store.address import StoreAddress
from mesh.store.embedded import EmbeddedStore
from mesh.store.preparing import Prepared, prepare

_READY_S = 60.0
_POLL_S = 0.05
_LEADERLESS_S = 2.0
"""In which a new leader is there."""

log = logging.getLogger("mesh.bringup")

Progress = Callable[[str], None]


class RunningMesh:
    """A mesh that this process owns. Made by `up`; end it with `stop`."""

    def __init__(self, config: MeshConfig, *, tethered: bool = True) -> None:
        self.config = config
        self._tethered = tethered
        self._claimed = False
        """The actors in Ray that bear this mesh's name are its own."""
        self.endpoints: list[str] = []
        """Of the supervisors."""
        self._run_dir = RunDir.take(config.name)
        self._store: EmbeddedStore | None = None
        self._external: Prepared | None = None
        self._fsynced: list[str] = []
        """Names of the entities that want their writes on disk."""
        # Ray is started from one thread that lives as long as the mesh: its children are told to
        # die with the thread that forked them.
        self._ray_thread = ThreadPoolExecutor(1, "ray")
        self._ray: runtime.RayInfo | None = None

    def __repr__(self) -> str:
        return f"<RunningMesh {self.config.name} at {', '.join(self.endpoints) or 'no port yet'}>"

    async def status(self) -> dict[str, Any]:
        """What `mesh status --json` prints."""
        status: dict[str, Any] = await ask(self.endpoints, "status", token=self.config.token)
        return {**status, "log": str(self.config.log_path)}

    async def start(self, carried: bytes, progress: Progress) -> None:
        """Bring everything up; on a failure the caller calls `stop`."""
        config = self.config
        await self._check(carried)
        progress("starting Ray (takes 5 to 12 s) and the store ...")
        async with asyncio.TaskGroup() as group:
            ray_started = group.create_task(self._start_ray())
            store_started = group.create_task(self._start_store(progress))
        self._ray = ray_started.result()
        address, prepared, store_about = store_started.result()
        self._check_classes(address, prepared)
        progress(f"Ray is up ({self._ray.address}); starting {config.handlers} handlers ...")
        replicated = 2 if self._store is not None else prepared.replicas
        durability = self._durability(address, prepared)
        if not replicated:
            progress(
                f"the store has no replicas: a write counts once it is "
                f"{'on its disk' if durability == 'fsynced' else 'in its memory'}, and there is no "
                f"failover of the store"
            )
        elif self._store is None and address.sentinels is None:
            progress(
                "the store has no failover of its own: when its primary dies, somebody has to promote "
                "a replica; a store with Sentinels (redis+sentinel://) does it by itself"
            )
        spec = Spec(
            config.name,
            prepared.partitions,
            config.handler_ids,
            config.host,
            config.port,
            config.token,
            address.as_dict(),
            replicated,
            durability,
            f"raymesh-{config.name}-{os.getpid()}-warden",
            config.app,
            carried,
            about={
                "store": store_about,
                "ray": {"address": self._ray.address, "dashboard": self._ray.dashboard},
            },
            owned=not self._ray.started and (self._tethered or self._store is not None),
            **_tuning(config),
        )
        await self._start_actors(spec, progress)
        self._run_dir.write(
            {
                "name": config.name,
                "pid": os.getpid(),
                "endpoints": self.endpoints,
                "token": config.token,
                "log": str(config.log_path),
            }
        )

    async def _check(self, carried: bytes) -> None:
        """Refuse what cannot work before anything is started: Ray alone takes seconds."""
        config = self.config
        specs = Registry([*load_app(config.app), *unpack(carried)]).specs
        self._fsynced = sorted(spec.name for spec in specs if spec.durability == "fsynced")
        if config.store != "embedded":
            address = _address(config)
            self._external = await self._prepared(address)
            self._durability(address, self._external)
            self._check_classes(address, self._external)
        else:
            await self._embedded().check()
        if config.ray == "local":
            await check_port(config.host, config.port)
        await asyncio.to_thread(check_ray, config.ray)

    async def _start_ray(self) -> runtime.RayInfo:
        def begin() -> runtime.RayInfo:
            ray = runtime.connect(
                self.config.name,
                self.config.ray,
                dashboard=self.config.dashboard,
                temp_dir=str(self._run_dir.path / "ray"),
            )
            if not ray.started:
                runtime.claim(self.config.name, self.config.ray)
            return ray

        return await asyncio.get_running_loop().run_in_executor(self._ray_thread, begin)

    async def _start_store(
        self, progress: Progress
    ) -> tuple[StoreAddress, Prepared, dict[str, Any]]:
        config = self.config
        if self._external is not None:
            address = _address(config)
            failover = "none" if address.sentinels is None else "sentinel"
            named = {"kind": "external", "address": str(address), "failover": failover}
            return address, self._external, named
        self._store = self._embedded()
        await self._store.start()
        progress(f"the store is up: primary, 2 replicas, 3 Sentinels, data in {config.data_folder}")
        prepared = await self._prepared(self._store.address)
        nodes = [dataclasses.asdict(node) for node in await self._store.nodes()]
        about = {"kind": "embedded", "nodes": nodes}
        return self._store.address, prepared, about

    def _embedded(self) -> EmbeddedStore:
        config = self.config
        return EmbeddedStore(config.data_folder, mesh=config.name, partitions=config.partitions)

    async def _prepared(self, address: StoreAddress) -> Prepared:
        options = _store_options(self.config)
        return await prepare(address, partitions=self.config.partitions, **options)

    def _durability(self, address: StoreAddress, prepared: Prepared) -> str:
        """What an acknowledged write will have survived."""
        durability = self.config.durability
        if durability == "auto":
            replicated = self.config.store == "embedded" or prepared.replicas
            durability = "replicated" if replicated else "fsynced"
        if durability == "fsynced" and not prepared.server.can_confirm_fsync:
            raise SetupError(
                f"store {address} has no replicas and cannot confirm that a write is on disk: attach "
                f"replicas, or use Redis or Valkey 7.2 with appendonly yes, or accept with "
                f"--durability process that a crash of the store loses acknowledged writes"
            )
        return durability

    def _check_classes(self, address: StoreAddress, prepared: Prepared) -> None:
        """An entity that asks for the disk must not be told of a write that is in memory."""
        server = prepared.server
        if self._fsynced and not server.can_confirm_fsync:
            version = ".".join(map(str, server.version))
            raise SetupError(
                f'{", ".join(self._fsynced)}: durability="fsynced" needs a store that confirms what is on '
                f"its disk, and {address} is {server.product} {version} with appendonly "
                f"{'yes' if server.aof else 'no'}: use Redis or Valkey 7.2 or newer with appendonly yes"
            )

    async def _start_actors(self, spec: Spec, progress: Progress) -> None:
        loop = asyncio.get_running_loop()

        def create() -> tuple[list[Any], Any, list[Any]]:
            first, *others = self.config.supervisor_ids
            # Its name is taken by one alone, so whoever has it may have the others.
            supervisors = [runtime.create_supervisor(spec.mesh, first)]
            self._claimed = True
            if spec.owned:
                runtime.mark_owner()
            supervisors += [runtime.create_supervisor(spec.mesh, id_) for id_ in others]
            return (
                supervisors,
                runtime.create_warden(spec.mesh, "w-0"),
                [runtime.create_handler(spec.mesh, id_) for id_ in spec.handlers],
            )

        supervisors, warden, handlers = await loop.run_in_executor(self._ray_thread, create)
        first, *others = supervisors
        listening = [runtime.call(first, "listen", spec, spec.port)]
        listening += [runtime.call(other, "listen", spec, 0) for other in others]
        ports = await asyncio.gather(*listening)
        self.endpoints = [f"{spec.host}:{port}" for port in ports]
        spec = dataclasses.replace(spec, supervisors=tuple(self.endpoints))
        await loop.run_in_executor(self._ray_thread, runtime.keep, spec)
        for supervisor in supervisors:
            await runtime.call(supervisor, "meet", spec)
        await runtime.start(warden, spec)
        async with asyncio.TaskGroup() as group:
            group.create_task(runtime.call(first, "lead"))
            for handle in handlers:
                group.create_task(runtime.start(handle, spec))
        for other in others:
            await runtime.call(other, "stand_by")
        for supervisor in supervisors:
            runtime.leave_running(supervisor)
        await self._wait_ready()
        progress(f"ready: {', '.join(self.endpoints)}, {spec.partitions} partitions")

    async def _wait_ready(self) -> None:
        deadline = asyncio.get_running_loop().time() + _READY_S
        while not self._is_whole(status := await self.status()):
            if asyncio.get_running_loop().time() > deadline:
                raise SetupError(f"the mesh was not ready within {_READY_S:g} s: {status}")
            await asyncio.sleep(_POLL_S)

    def _is_whole(self, status: dict[str, Any]) -> bool:
        return bool(status["ready"]) and len(status["supervisors"]) == self.config.supervisors

    async def stop(self) -> None:
        """Take everything down that this process started. Safe after a start that failed halfway."""
        if self.endpoints:
            await self._tell_to_stop()
        # Whatever one part says of its end, the others are ended too.
        try:
            await asyncio.get_running_loop().run_in_executor(self._ray_thread, self._stop_ray)
        finally:
            self._ray_thread.shutdown()
            try:
                if self._store is not None:
                    await self._store.stop()
            finally:
                self._run_dir.remove()

    async def _tell_to_stop(self) -> None:
        """Have everybody end in good order. Where nobody leads for long, they are ended all the same."""
        deadline = asyncio.get_running_loop().time() + _LEADERLESS_S
        while True:
            try:
                await ask(self.endpoints, "stop", token=self.config.token)
            except MeshError as error:
                if asyncio.get_running_loop().time() > deadline:
                    log.warning("nobody was told to end in good order: %s", error)
                    return
                await asyncio.sleep(_POLL_S)
            else:
                return

    def _stop_ray(self) -> None:
        if self._claimed and self._ray is not None and not self._ray.started:
            runtime.kill_all(self.config.name)
        runtime.disconnect()


async def up(
    config: MeshConfig,
    *,
    carried: bytes = b"",
    tethered: bool = True,
    progress: Progress = lambda _: None,
) -> RunningMesh:
    """Bring a mesh up on this machine, or from it in a Ray that runs; returns when it is ready.

    Args:
        config: what it should be.
        carried: entity classes (actors.carried), beside those that `config.app` names.
        tethered: the mesh is to end with this process, even where Ray goes on.
        progress: gets a line for each step: Ray alone takes seconds.

    Raises:
        SetupError: something of it cannot be started; nothing is left behind.
    """
    mesh = RunningMesh(config, tethered=tethered)
    try:
        await mesh.start(carried, progress)
    except BaseExceptionGroup as group:
        await asyncio.shield(mesh.stop())
        raise _first(group) from group
    except BaseException:
        await asyncio.shield(mesh.stop())
        raise
    return mesh


def _address(config: MeshConfig) -> StoreAddress:
    return StoreAddress.from_url(config.store, config.name, config.store_password)


def _store_options(config: MeshConfig) -> dict[str, float]:
    return {
        "wait_timeout_s": config.store_wait_s,
        "call_timeout_s": config.store_reply_s,
        "connect_timeout_s": config.store_connect_s,
    }


def _tuning(config: MeshConfig) -> dict[str, Any]:
    """The settings that the actors' parts know by names of their own."""
    return {
        "store_options": _store_options(config),
        "store_open_s": config.store_open_s,
        "restart_after_s": config.restart_after_s,
        "handling": {
            "window_s": config.idempotency_window_s,
            "caller_bytes": config.idempotency_bytes,
            "max_pending": config.max_pending,
            "cache_bytes": config.cache_bytes,
            "history_bytes": config.history_bytes,
            "limit_s": config.method_limit_s,
            "threads": config.threads,
            "max_state_bytes": config.max_state_bytes,
            "max_reply_bytes": config.max_reply_bytes,
            "health_s": config.health_s,
        },
        "limits": {
            "hello_s": config.hello_s,
            "unauthenticated": config.unauthenticated,
            "write_buffer_bytes": config.write_buffer_bytes,
        },
        "times": config.times,
        "health_port": config.health_port,
        "log_level": config.log_level,
        "log_file": str(config.log_path),
    }


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error that a person can act on, out of several that came together."""
    flat: list[BaseException] = []
    pending: list[BaseException] = [group]
    while pending:
        error = pending.pop(0)
        if isinstance(error, BaseExceptionGroup):
            pending.extend(error.exceptions)
        else:
            flat.append(error)
    return next((e for e in flat if isinstance(e, MeshError)), flat[0])
