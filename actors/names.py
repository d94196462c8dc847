"""What the actors are called, so that `ray list actors` reads like `mesh status`."""

from __future__ import annotations


def namespace(mesh: str) -> str:
    """One Ray namespace for each mesh."""
    return f"raymesh-{mesh}"


OWNER = "owner"
"""Name of what stands in Ray for the process that brought the mesh up."""


def handler(id: str) -> str:
    """Name of a handler's actor."""
    return f"handler {id}"


def supervisor(id: str) -> str:
    """Name of a supervisor's actor."""
    return f"supervisor {id}"


def warden(id: str) -> str:
    """Name of a warden's actor."""
    return f"warden {id}"
