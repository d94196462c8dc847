"""A handler whose in-sync set is short, and the node that was left behind."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from unit.rigs import PARTITIONS, Handler, Leader, run

from mesh.core.handling_config import HandlingConfig
from mesh.core.records import ChangeSet, SetChange
from mesh.core.syncset import InSyncSet
from mesh.store.memory import MemoryServer

SHORT = HandlingConfig(replicas=3)
"""Of three that there should be, two follow."""


def copied(server: MemoryServer) -> Any:
    """What a replica has that stops to follow now."""
    return deepcopy((server.partitions, server.grants, server.handlers))


def promote(leader: Leader, copy: Any) -> None:
    """The node with that copy is the primary, of the next life."""
    server = leader.server
    server.partitions, server.grants, server.handlers = deepcopy(copy)
    server.restart()
    leader.open_life()


def complete(leader: Leader) -> None:
    """The third replica follows, and is a member from now on."""
    server = leader.server
    server.links.append("memory:3")
    assert server.life is not None
    members = InSyncSet(server.life.sync_set.version + 1, frozenset(server.links))
    reply = run(
        leader.store.change_set(ChangeSet(b"g", leader.life, leader.token, SetChange(members)))
    )
    assert reply.acknowledged


def owner_of_all(leader: Leader, config: HandlingConfig = SHORT, **options: Any) -> Handler:
    """It is told so, and has read all that there is."""
    handler = Handler(leader.server, config=config, **options)
    leader.takeover(dict.fromkeys(range(PARTITIONS), handler.nonce), enroll=[handler.nonce])
    tell(leader, handler)
    handler.warm_up()
    return handler


def tell(leader: Leader, handler: Handler) -> None:
    handler.core.on_grant(leader.grant(handler.nonce), handler.now)
