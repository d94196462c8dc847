"""How a mesh is put together: one frozen value, checked as a whole, passed to every process of it."""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mesh.errors import SetupError

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_APP = re.compile(r"[\w.]+(:\w+(,\w+)*)?")
MAX_PARTITIONS = 16_384
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, slots=True)
class MeshConfig:
    """A mesh as its operator asks for it.

    Attributes:
        name: tells one mesh from another; part of every key in the store.
        handlers: number of handler processes.
        partitions: of the key space; fixed when the mesh is created, None for what it was created with
            (256 for a new one).
        app: entity classes as "module" or "module:Class,Class"; more than one with semicolons.
        store: "embedded", or a redis:// or rediss:// address.
        durability: "replicated"; "fsynced" or "process" for a store without replicas; "auto" takes
            what the store can do, never "process".
        ray: "local" starts a Ray of its own, "auto" or an address joins one that runs.
        dashboard: start Ray's dashboard too (local Ray only).
        port: of the supervisor; 0 takes a free one.
        data_dir: where the embedded store keeps its files; None for the user's data folder.
        token: clients have to know it; needed on any address that is not loopback.
    """

    name: str = "default"
    handlers: int = 4
    partitions: int | None = None
    app: str = ""
    store: str = "embedded"
    durability: str = "auto"
    ray: str = "local"
    dashboard: bool = True
    host: str = "127.0.0.1"
    port: int = 7400
    data_dir: str | None = None
    token: str = ""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise SetupError(
                f"mesh name {self.name!r}: use 1 to 64 letters, digits, dots, dashes, underscores"
            )
        if not 1 <= self.handlers <= 1000:
            raise SetupError(f"--handlers must be 1 to 1000, not {self.handlers}")
        if self.partitions is not None and not 1 <= self.partitions <= MAX_PARTITIONS:
            raise SetupError(f"--partitions must be 1 to {MAX_PARTITIONS}, not {self.partitions}")
        if self.partitions is not None and self.partitions < self.handlers:
            raise SetupError(
                f"{self.handlers} handlers cannot share {self.partitions} partitions; "
                f"use fewer handlers or more partitions"
            )
        if not 0 <= self.port < 65_536:
            raise SetupError(f"--port must be 0 to 65535, not {self.port}")
        if self.app and not all(_APP.fullmatch(part) for part in self.app.split(";")):
            raise SetupError(f'--app {self.app!r} is not "module" or "module:Class,Class"')
        if self.durability not in ("auto", "replicated", "fsynced", "process"):
            raise SetupError(
                f"--durability {self.durability!r}: choose auto, replicated, fsynced or process"
            )
        if self.host not in LOOPBACK and not self.token:
            raise SetupError(
                f"--host {self.host} can be reached from other machines: set a token "
                f"(MESH_TOKEN or --token-file), or stay on 127.0.0.1"
            )

    @property
    def handler_ids(self) -> tuple[str, ...]:
        """h-0, h-1, …"""
        return tuple(f"h-{i}" for i in range(self.handlers))


def load_app(app: str) -> list[type]:
    """Import an application's entity classes.

    Args:
        app: "module" takes every entity that the module defines, "module:Class,Class" those named.

    Raises:
        SetupError: it does not import, or has no such class; says what failed inside.
    """
    classes: list[type] = []
    for part in filter(None, app.split(";")):
        module_name, _, names = part.partition(":")
        try:
            module = importlib.import_module(module_name)
        except Exception as error:
            raise SetupError(
                f"--app {part}: importing {module_name!r} failed: {type(error).__name__}: {error}"
            ) from error
        found = _pick(module, names.split(",") if names else None)
        if not found:
            raise SetupError(f"--app {part}: {module_name!r} defines no @mesh.entity class")
        classes.extend(found)
    return classes


def _pick(module: Any, names: Sequence[str] | None) -> list[type]:
    if names is None:
        return [
            value
            for value in vars(module).values()
            if isinstance(value, type)
            and "__mesh_entity__" in vars(value)
            and value.__module__ == module.__name__
        ]
    missing = [name for name in names if not hasattr(module, name)]
    if missing:
        raise SetupError(f"--app: {module.__name__!r} has no {', '.join(missing)}")
    return [getattr(module, name) for name in names]


def default_data_dir(mesh: str) -> Path:
    """Where a mesh keeps its data unless told otherwise: in the user's data folder (XDG)."""
    base = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(base).expanduser() / "raymesh" / mesh
