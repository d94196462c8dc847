"""What tools ask a supervisor: status, events, and that the mesh be stopped.

A standby passes questions on to the leader. Where there is none it says what it knows itself: handlers and
wardens report to every supervisor, and tables and events are everywhere.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from mesh.core.leadership import Leadership, Role
from mesh.core.life_numbers import count_of
from mesh.core.members import Member
from mesh.core.messages import Answer, Ask, Register
from mesh.core.table import HandlerRow, Table, TableVersion
from mesh.errors import MeshError, Unavailable
from mesh.ids import process_id
from mesh.lives import Lives
from mesh.net.connection import Connection
from mesh.supervisor.journal import Journal
from mesh.supervisor.leader import Leader
from mesh.supervisor.links import Links
from mesh.supervisor.peers import Peers
from mesh.supervisor.settings import SupervisorSettings
from mesh.supervisor.watch import Watch


class Questions:
    """Who answers.

    Args:
        settings: of the supervisor that is asked.
        leadership: who leads, as it knows.
        watch: knows suspects.
        stop: has the mesh stopped.
    """

    def __init__(
        self,
        settings: SupervisorSettings,
        links: Links,
        leader: Leader,
        leadership: Leadership,
        peers: Peers,
        lives: Lives,
        journal: Journal,
        watch: Watch,
        stop: Callable[[], None],
    ) -> None:
        self.endpoints: tuple[str, ...] = ()
        """Of all supervisors; empty where there is but this one."""
        self._settings = settings
        self._links = links
        self._leader = leader
        self._leadership = leadership
        self._peers = peers
        self._lives = lives
        self._journal = journal
        self._watch = watch
        self._stop = stop

    async def answer(self, conn: Connection, ask: Ask) -> None:
        """Answer one question."""
        answers: dict[str, Callable[[], Awaitable[Any]]] = {
            "status": self.status,
            "events": self.events,
            "stop": self.stop,
        }
        if ask.what == "follow":
            self._journal.follow(conn, ask.number)
            return
        answer = answers.get(ask.what)
        error, blob = "", b""
        if answer is None:
            error = (
                f"no question is named {ask.what!r:.40}; there are {sorted(answers)} and 'follow'"
            )
        else:
            try:
                blob = json.dumps(await answer()).encode()
            except MeshError as problem:
                error = str(problem)
        conn.send(Answer(ask.number, error, blob).frame())

    async def events(self) -> list[dict[str, Any]]:
        """What `mesh events --json` prints, a line each."""
        return list(self._journal.events)

    async def stop(self) -> bool:
        """End the mesh.

        Raises:
            Unavailable: nobody leads who could tell everybody.
        """
        if self._leader.core is None:
            return bool(await self._ask_leader("stop"))
        self._stop()
        return True

    async def status(self) -> dict[str, Any]:
        """What `mesh status --json` prints."""
        if self._leader.core is None:
            try:
                status: dict[str, Any] = await self._ask_leader("status")
            except Unavailable:
                return self.own_status()
            return status
        return self.own_status()

    async def _ask_leader(self, what: str) -> Any:
        leader = self._leadership.leader
        if leader is None:
            raise Unavailable(
                f"no supervisor leads at the moment; {self._settings.id} is a standby, and the next leader "
                f"is a matter of about a second: ask again"
            )
        return await self._peers.ask(leader, what)

    def own_status(self) -> dict[str, Any]:
        """The status as far as this supervisor knows it. `ready` is what only a leader may say."""
        s, core = self._settings, self._leader.core
        table = core.table if core else self._table()
        if core is not None:
            handlers = [self._describe(m, table) for m in core.members]
        else:
            handlers = [_introduce(r, table) for r in self._links.registered.values()]
        beats = self._links.beats.values()
        return {
            "name": s.mesh,
            "endpoints": list(self.endpoints) or [f"{s.host}:{self._links.port}"],
            "partitions": s.partitions,
            "ready": bool(core and core.ready),
            "leader": s.id if core else self._leadership.leader,
            "table_version": _counted(table.version) if table else None,
            "store_life": count_of(core.life if core else self._leadership.life) or None,
            "supervisors": self._supervisors(),
            "wardens": [
                {"id": w.id, "node": w.node, "pid": w.pid} for w in self._links.wardens.values()
            ],
            "handlers": sorted(handlers, key=lambda h: str(h["id"])),
            "store": {
                **self._store(),
                "in_sync": sorted(self._lives.sync_set.members),
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

    def _store(self) -> dict[str, Any]:
        """What it is, and its servers as the leader sees them in each round of its storekeeping."""
        about: dict[str, Any] = self._settings.about.get("store", {})
        if self._leader.core is None:
            return about
        rows = self._lives.roll.rows(about.get("nodes", ()), self._lives.sync_set.members)
        return {**about, "nodes": rows} if rows else about

    def _describe(self, member: Member, table: Table | None) -> dict[str, Any]:
        told = _describe(member, table)
        if told["state"] == "alive" and member.row.nonce in self._watch.suspects:
            told["state"] = "suspect"
        pulse = self._watch.pulse(member.row.nonce)
        if pulse is not None and pulse.health_port:
            told["health_port"] = pulse.health_port
        return told

    def _table(self) -> Table | None:
        return Table.decode(self._links.table) if self._links.table is not None else None

    def _supervisors(self) -> list[dict[str, Any]]:
        s, leadership = self._settings, self._leadership
        leader = s.id if leadership.role is Role.LEADER else leadership.leader
        here = (s.id, process_id(), s.host, self._links.port)
        others = [(o.id, o.pid, o.host, o.port) for o in self._links.supervisors.values()]
        return [
            {
                "id": id_,
                "role": "leader" if id_ == leader else "standby",
                "pid": pid,
                "host": host,
                "port": port,
            }
            for id_, pid, host, port in sorted((here, *others))
        ]


def _describe(member: Member, table: Table | None) -> dict[str, Any]:
    """A handler as the leader knows it."""
    return _row(member.row, member.pid, member.state, member.health, table)


def _introduce(register: Register, table: Table | None) -> dict[str, Any]:
    """A handler as it has introduced itself; whether it is dead is not for a standby to say."""
    is_enrolled = table is not None and table.row(register.nonce) is not None
    return _row(register, register.pid, "alive" if is_enrolled else "starting", "ok", table)


def _row(
    who: HandlerRow | Register, pid: int, state: str, health: str, table: Table | None
) -> dict[str, Any]:
    return {
        "id": who.id,
        # On record, and not heard of yet by this leader: 0 would be whoever sends a signal to it.
        "pid": pid or None,
        "host": who.host,
        "port": who.port,
        "region": who.region,
        "zone": who.zone,
        "role": "active",
        "state": state,
        "health": health,
        "partitions": table.partitions_of(who.nonce) if table is not None else [],
        "process": who.nonce.hex(),
    }


def _counted(version: TableVersion) -> list[int]:
    """As people read it."""
    return [count_of(version.life), version.token, version.number]
