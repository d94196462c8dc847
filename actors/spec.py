"""What every actor of a mesh is told when it starts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Spec:
    """One mesh, as its processes see it.

    Attributes:
        classes: entity classes (Ray carries them to the workers), or empty where `app` names them.
        app: "module:Class" to import in the worker.
        store: the store's address as a plain dict (mesh.store.address).
        warden: address of the node's warden.
        supervisors: "host:port" of each.
        about: what status adds.
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
    classes: tuple[type, ...] = ()
    supervisors: tuple[str, ...] = ()
    about: dict[str, Any] = field(default_factory=dict)
