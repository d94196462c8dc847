"""Is that server fit to be a mesh's store? Asked before anything else is started, and told in words.

Whoever mistyped an address or forgot a password hears so within a second, and not after Ray has been started.
"""

from __future__ import annotations

from dataclasses import dataclass

from mesh.core.keyspace import DEFAULT_PARTITIONS
from mesh.errors import SetupError
from mesh.store.address import StoreAddress
from mesh.store.api import StoreRefused, StoreUnreachable
from mesh.store.redis import RedisStore
from mesh.store.sentinel import check_quorum
from mesh.store.server import ServerInfo


@dataclass(frozen=True, slots=True)
class Prepared:
    """A store that has the functions, and what it knows of the mesh.

    Attributes:
        partitions: of the mesh, as recorded there; else as asked for.
        server: its primary.
        replicas: how many are attached to that.
    """

    partitions: int
    server: ServerInfo
    replicas: int


async def prepare(
    address: StoreAddress,
    *,
    partitions: int | None,
    wait_timeout_s: float,
    call_timeout_s: float,
    connect_timeout_s: float,
) -> Prepared:
    """Look at the store, load the mesh's functions there, and read what is on record.

    Args:
        partitions: that the mesh is asked to have; None for whatever is on record.
        wait_timeout_s, call_timeout_s, connect_timeout_s: see RedisStore.

    Raises:
        SetupError: nobody answers, the login is wrong, the server is unfit, or the mesh was created with
            another number of partitions.
    """
    store = RedisStore(
        address,
        wait_timeout_s=wait_timeout_s,
        call_timeout_s=call_timeout_s,
        connect_timeout_s=connect_timeout_s,
    )
    try:
        if address.sentinels is not None:
            await check_quorum(address, within_s=connect_timeout_s)
        server = await store.check_server()
        await store.ensure_functions()
        recorded = await store.recorded()
        replicas = len(set(await store.links()))
    except StoreUnreachable as error:
        raise SetupError(f"{error.message}; start the store, or name another one") from error
    except StoreRefused as error:
        raise SetupError(error.message) from error
    finally:
        await store.close()
    if recorded.life is None:
        return Prepared(partitions or DEFAULT_PARTITIONS, server, replicas)
    created = recorded.life.partitions
    if partitions is not None and partitions != created:
        raise SetupError(
            f"mesh {address.mesh!r} was created with {created} partitions, not {partitions}; the number "
            f"is fixed: leave --partitions out, or use another name"
        )
    return Prepared(created, server, replicas)
