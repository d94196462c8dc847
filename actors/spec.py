"""What every actor of a mesh is told when it starts."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mesh import logs
from mesh.core.timing import Timing

_HANDLERS_FROM = 10
"""After the first supervisor's health port."""


@dataclass(frozen=True)
class Spec:
    """One mesh, as its processes see it.

    Attributes:
        carried: entity classes that cannot be imported in a worker, by value (actors.carried).
        app: "module:Class" to import in the worker.
        store: the store's address as a plain dict (mesh.store.address).
        warden: address of the node's warden.
        supervisors: "host:port" of each, in the order of their ids: s-0, s-1, ...
        about: what status adds.
        store_options: time-outs of mesh.store.redis.RedisStore, by name.
        handling: fields of mesh.core.handling.HandlingConfig that are not at their defaults.
        limits: fields of mesh.core.wire.Limits, likewise.
        times: those of mesh.timings that are not as in its preset "local".
        health_port: of the first supervisor; None: nobody tells of its health.
        log_level: least weight of what is logged.
        log_file: where to, on every machine; None leaves it to Ray.
        owned: the mesh ends with the process that brought it up (actors.runtime.mark_owner).
    """

    mesh: str
    partitions: int
    handlers: tuple[str, ...]
    host: str
    port: int
    token: str
    store: dict[str, Any]
    replicas: int
    durability: str
    warden: str
    app: str = ""
    carried: bytes = b""
    supervisors: tuple[str, ...] = ()
    about: dict[str, Any] = field(default_factory=dict)
    store_options: dict[str, float] = field(default_factory=dict)
    store_open_s: float = 15.0
    restart_after_s: float = 0.25
    handling: dict[str, Any] = field(default_factory=dict)
    limits: dict[str, Any] = field(default_factory=dict)
    times: dict[str, float] = field(default_factory=dict)
    health_port: int | None = None
    log_level: str = "info"
    log_file: str | None = None
    owned: bool = False

    @property
    def timing(self) -> Timing:
        """By which it is told who is alive."""
        return Timing.of(self.times, method_limit_s=self.handling.get("limit_s", 30.0))

    def health_port_of(self, id: str) -> int | None:
        """Where the supervisor s-K, or the handler h-K, tells of its health: each on its own."""
        kind, _, number = id.rpartition("-")
        if not self.health_port:
            return self.health_port
        return self.health_port + int(number) + (_HANDLERS_FROM if kind == "h" else 0)

    @property
    def secrets(self) -> tuple[str, ...]:
        """The texts that must never be logged."""
        sentinels = self.store.get("sentinels") or {}
        found = (self.token, self.store.get("password"), sentinels.get("password"))
        return tuple(secret for secret in found if secret)

    def log_as(self, who: str) -> None:
        """Have this process, of that role and id, log where the mesh logs."""
        path = Path(self.log_file) if self.log_file else None
        logs.set_up(who, level=self.log_level, path=path, secrets=self.secrets)
