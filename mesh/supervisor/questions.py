"""What tools ask a supervisor: status, events, and that the mesh be stopped."""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable
from typing import Any

from mesh.core.members import Member
from mesh.core.messages import Answer, Ask
from mesh.core.syncset import InSyncSet
from mesh.core.table import Table
from mesh.net.connection import Connection
from mesh.supervisor.journal import Journal
from mesh.supervisor.leader import Leader
from mesh.supervisor.links import Links
from mesh.supervisor.settings import SupervisorSettings


class Questions:
    """Who answers.

    Args:
        settings: of the supervisor that is asked.
        stop: has the mesh stopped.
    """

    def __init__(
        self,
        settings: SupervisorSettings,
        links: Links,
        leader: Leader,
        journal: Journal,
        stop: Callable[[], None],
    ) -> None:
        self.sync_set = InSyncSet(0, frozenset())
        self._settings = settings
        self._links = links
        self._leader = leader
        self._journal = journal
        self._stop = stop

    async def answer(self, conn: Connection, ask: Ask) -> None:
        """Answer one question."""
        answers: dict[str, Callable[[], Awaitable[Any]]] = {
            "status": self.status,
            "events": self.events,
            "stop": self.stop,
        }
        if ask.what == "follow":
            self._journal.followers[conn] = ask.number
            return
        answer = answers.get(ask.what)
        if answer is None:
            error = (
                f"no question is named {ask.what!r:.40}; there are {sorted(answers)} and 'follow'"
            )
            conn.send(Answer(ask.number, error, b"").frame())
            return
        conn.send(Answer(ask.number, "", json.dumps(await answer()).encode()).frame())

    async def events(self) -> list[dict[str, Any]]:
        """What `mesh events --json` prints, a line each."""
        return list(self._journal.events)

    async def stop(self) -> bool:
        """End the mesh."""
        self._stop()
        return True

    async def status(self) -> dict[str, Any]:
        """What `mesh status --json` prints."""
        s, core = self._settings, self._leader.core
        table = core.table if core else None
        handlers = [_describe(m, table) for m in core.members] if core else []
        endpoints = [f"{s.host}:{self._links.port}"]
        beats = self._links.beats.values()
        return {
            "name": s.mesh,
            "endpoints": endpoints,
            "partitions": s.partitions,
            "ready": bool(core and core.ready),
            "table_version": list(table.version) if table else None,
            "store_life": core.life if core else None,
            "supervisors": [
                {
                    "id": s.id,
                    "role": "leader" if core and not core.deposed else "standby",
                    "pid": os.getpid(),
                    "host": s.host,
                    "port": self._links.port,
                }
            ],
            "wardens": [
                {"id": w.id, "node": w.node, "pid": w.pid} for w in self._links.wardens.values()
            ],
            "handlers": sorted(handlers, key=lambda h: str(h["id"])),
            "store": {
                **s.about.get("store", {}),
                "in_sync": sorted(self.sync_set.members),
                "async_lag_ms": round(max((b.async_lag_ms for b in beats), default=0.0), 3),
            },
            "outcomes": {
                "done": sum(b.done for b in beats),
                "entity_error": sum(b.entity_errors for b in beats),
                "not_executed": sum(b.not_executed for b in beats),
                "unknown": sum(b.unknown for b in beats),
            },
            "ray": s.about.get("ray", {}),
        }


def _describe(member: Member, table: Table | None) -> dict[str, Any]:
    row = member.row
    return {
        "id": row.id,
        "pid": member.pid,
        "host": row.host,
        "port": row.port,
        "region": row.region,
        "zone": row.zone,
        "role": "active",
        "state": member.state,
        "health": member.health,
        "partitions": table.partitions_of(row.nonce) if table else [],
        "process": row.nonce.hex(),
    }
