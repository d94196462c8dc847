"""Where a running mesh leaves its address: a folder of its own, locked as long as it runs.

The lock is the truth: it is held by the process that owns the mesh and ends with it, however it ends. A
folder whose lock is free is a leftover, and the next start removes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
from hashlib import blake2b
from pathlib import Path
from typing import Any, Self

from mesh.errors import SetupError


def _base() -> Path:
    return Path(tempfile.gettempdir()) / f"raymesh-{os.getuid()}"


def _folder(mesh: str) -> Path:
    # Short and of fixed length: Ray keeps sockets below it, and a socket's path has 107 bytes.
    return _base() / blake2b(mesh.encode(), digest_size=4).hexdigest()


class RunDir:
    """The folder of one running mesh, held by the process that owns the mesh."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock = lock

    @classmethod
    def take(cls, mesh: str) -> Self:
        """Make the mesh's folder and lock it; removes leftovers of meshes that were killed.

        Raises:
            SetupError: a mesh of that name runs already, or there is no place for such folders.
        """
        base = _base()
        try:
            base.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise SetupError(
                f"{base} cannot be made: {error.strerror}; set TMPDIR to a folder of yours"
            ) from error
        if base.stat().st_uid != os.getuid():
            raise SetupError(f"{base} belongs to another user; set TMPDIR to a folder of yours")
        sweep()
        path = _folder(mesh)
        path.mkdir(mode=0o700, exist_ok=True)
        lock = _try_lock(path / "lock")
        if lock is None:
            state = read(mesh) or {}
            raise SetupError(
                f"a mesh named {mesh!r} runs already (pid {state.get('pid', '?')}, "
                f"{', '.join(state.get('endpoints', [])) or 'still starting'}); it was left as it is. "
                f"End it with: mesh down --name {mesh}"
            )
        return cls(path, lock)

    def write(self, state: dict[str, Any]) -> None:
        """Leave the mesh's address for the other commands."""
        target = self.path / "mesh.json"
        scratch = self.path / "mesh.json.new"
        descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(state, file)
        scratch.rename(target)

    def remove(self) -> None:
        """The mesh is gone: so is its folder."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)
        with contextlib.suppress(OSError):
            _base().rmdir()


def read(mesh: str) -> dict[str, Any] | None:
    """What a running mesh left; None where none of that name runs."""
    path = _folder(mesh)
    try:
        lock = _try_lock(path / "lock", create=False)
    except FileNotFoundError:
        return None
    if lock is not None:
        os.close(lock)
        return None
    try:
        state: dict[str, Any] = json.loads((path / "mesh.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return state


def sweep() -> None:
    """Remove folders whose owner is gone."""
    for path in _base().glob("*"):
        with contextlib.suppress(OSError):
            lock = _try_lock(path / "lock", create=False)
            if lock is not None:
                shutil.rmtree(path, ignore_errors=True)
                os.close(lock)


def _try_lock(path: Path, *, create: bool = True) -> int | None:
    descriptor = os.open(path, os.O_RDWR | (os.O_CREAT if create else 0) | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
