"""Asking a Ray for a mesh, from outside: `python -m actors.find ADDRESS NAME [--end]`.

A process of its own, since whoever joins a Ray is a driver of it for good: a client that only wants to know
where a mesh is must not become one. The answer is one line of JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from actors import runtime
from actors.reach import check_ray
from mesh.errors import MeshError


def endpoints_here(mesh: str) -> list[str] | None:
    """Endpoints of a mesh in the Ray that this process has joined already; None where it has joined none."""
    return runtime.endpoints(mesh) if runtime.is_connected() else None


def main(arguments: Sequence[str]) -> int:
    """Say where the mesh is, or end what is left of it."""
    address, mesh, *options = arguments
    answer: dict[str, object]
    try:
        check_ray(address)
        runtime.connect(mesh, address, dashboard=False, temp_dir="")
        if "--end" in options:
            answer = {"ended": runtime.kill_all(mesh)}
        else:
            answer = {"endpoints": runtime.endpoints(mesh)}
        runtime.disconnect()
    except MeshError as error:
        answer = {"error": error.message}
    print(json.dumps(answer), flush=True)  # noqa: T201 - the answer
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
