"""How a life is opened on the store's primary: with enough replicas attached, and acknowledged by them."""

from __future__ import annotations

import asyncio

from mesh.core.records import OpenLife, StoreStatus
from mesh.core.syncset import InSyncSet
from mesh.errors import SetupError
from mesh.ids import new_operation
from mesh.net.clock import Clock
from mesh.store.api import Store, StoreRefused, StoreUnreachable
from mesh.supervisor.settings import SupervisorSettings

_AGAIN_S = 0.05


async def open_life(
    store: Store, settings: SupervisorSettings, clock: Clock
) -> tuple[int, int, InSyncSet]:
    """Open a life; returns its number, the leader's token and the in-sync set.

    Raises:
        SetupError: the store is not fit, does not get ready in time, or belongs to another mesh.
    """
    s = settings
    deadline = clock.now() + s.open_s
    problem = "it did not answer"
    operation = new_operation()
    while clock.now() < deadline:
        try:
            recorded = await store.recorded()
            links = await store.links()
            if s.durability == "replicated" and len(set(links)) < max(1, s.replicas):
                problem = (
                    f"{len(set(links))} of {max(1, s.replicas)} replicas are attached; attach the "
                    f"others, or choose another durability"
                )
                await asyncio.sleep(_AGAIN_S)
                continue
            life = recorded.life
            if life is not None and life.partitions != s.partitions:
                raise SetupError(
                    f"mesh {s.mesh!r} was created with {life.partitions} partitions, not "
                    f"{s.partitions}; the number is fixed: leave --partitions out or use "
                    f"another name"
                )
            number, token, version = (
                (life.number, life.token, life.sync_set.version) if life else (0, 0, 0)
            )
            members = frozenset(links) if s.durability == "replicated" else frozenset()
            sync_set = InSyncSet(version + 1, members, frozenset(), s.durability)
            call = OpenLife(operation, number, number + 1, token + 1, s.partitions, sync_set)
            if await _acknowledged(store, call, clock, deadline):
                return call.number, call.token, sync_set
            problem = f"its replicas {sorted(members)} do not acknowledge"
        except StoreUnreachable as error:
            problem = str(error)
            await asyncio.sleep(_AGAIN_S)
        except StoreRefused as error:
            if not error.transient:
                raise SetupError(str(error)) from error
            problem = str(error)
            await asyncio.sleep(_AGAIN_S)
    raise SetupError(f"the store was not ready within {s.open_s:g} s: {problem}")


async def _acknowledged(store: Store, call: OpenLife, clock: Clock, deadline: float) -> bool:
    while clock.now() < deadline:
        reply = await store.open_life(call)
        if reply.status is not StoreStatus.OK:
            raise SetupError(
                f"another supervisor is opening this mesh ({reply.status.value}: {reply.detail})"
            )
        if reply.acknowledged:
            return True
        await asyncio.sleep(_AGAIN_S)
    return False
