"""Which mesh a client means: what it was given, else what the environment says, else the one on this machine,
else the one in the Ray that this process has joined or that RAY_ADDRESS names.

The environment is read when a client connects, never at import. An endpoint that was given and is empty is
refused and not replaced: `connect(os.environ["X"])` with an empty X must not end up at some other mesh.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from mesh import rundir
from mesh.errors import BadRequest, Unavailable

ENDPOINTS_VARIABLE = "MESH_ENDPOINTS"
TOKEN_VARIABLE = "MESH_TOKEN"  # noqa: S105 - a variable's name
NAME_VARIABLE = "MESH_NAME"
RAY_VARIABLES = ("MESH_RAY_ADDRESS", "RAY_ADDRESS")
_FIND_S = 60.0
DEFAULT_MESH = "default"


@dataclass(frozen=True, slots=True)
class Target:
    """A mesh to connect to.

    Attributes:
        addresses: "host:port" of supervisors or handlers; any one is enough.
        token: the mesh's secret, empty where it has none.
        mesh: its name; empty for whichever answers there.
    """

    addresses: tuple[str, ...]
    token: str = field(default="", repr=False)
    mesh: str = ""


def locate(endpoints: Iterable[str], token: str | None, mesh: str) -> Target:
    """The mesh that a caller means.

    Args:
        endpoints: as given; none means MESH_ENDPOINTS, without it the mesh on this machine, and where none
            runs, the one in the Ray that this process has joined or that RAY_ADDRESS names.
        token: None means MESH_TOKEN, and without it what a mesh on this machine left for its user.
        mesh: its name; the mesh on this machine is the one in MESH_NAME unless named, else "default".

    Raises:
        BadRequest: an endpoint is not "host:port".
        Unavailable: no endpoint is given, and no mesh of that name runs on this machine or in that Ray.
    """
    given = tuple(endpoints)
    secret = os.environ.get(TOKEN_VARIABLE, "") if token is None else token
    if given:
        return Target(parse(given), secret, mesh)
    if variable := os.environ.get(ENDPOINTS_VARIABLE, "").strip():
        return Target(parse((variable,), ENDPOINTS_VARIABLE), secret, mesh)
    name = mesh or os.environ.get(NAME_VARIABLE) or DEFAULT_MESH
    state = rundir.read(name)
    if state is None:
        registered, where = _in_ray(name)
        if registered:
            return Target(parse(registered), secret, name)
        option = "" if name == DEFAULT_MESH else f" --name {name}"
        raise Unavailable(
            f"no mesh named {name!r} runs on this machine{where}; start one with: mesh up{option}; or name "
            f'endpoints, such as "127.0.0.1:7400", in the call or in {ENDPOINTS_VARIABLE}'
        )
    if not state.get("endpoints"):
        raise Unavailable(f"mesh {name!r} is still starting; try again in a few seconds")
    if token is None and not secret:
        secret = str(state.get("token", ""))
    return Target(parse(state["endpoints"]), secret, name)


def _in_ray(name: str) -> tuple[list[str], str]:
    """Endpoints of the mesh in Ray, and where they were looked for; a client needs no Ray otherwise.

    Raises:
        Unavailable: the Ray that the environment names was not reached.
    """
    if "ray" in sys.modules:
        # By its name, since whoever has no Ray must be able to import this file.
        here: list[str] | None = import_module("actors.find").endpoints_here(name)
        if here is not None:
            return here, " or in the Ray that this process has joined"
    variable = next((v for v in RAY_VARIABLES if os.environ.get(v)), None)
    if variable is None:
        return [], ""
    address = os.environ[variable]
    try:
        answer = ask_ray(address, name)
    except Unavailable as error:
        raise Unavailable(
            f"no mesh named {name!r} runs on this machine, and {variable}={address} was not asked: {error}"
        ) from None
    return answer["endpoints"], f" or in the Ray at {address}"


def ask_ray(address: str, mesh: str, *options: str) -> dict[str, Any]:
    """What `python -m actors.find` says; takes some seconds.

    Raises:
        Unavailable: no Ray was reached there.
    """
    done = subprocess.run(  # noqa: S603 - our own module
        [sys.executable, "-m", "actors.find", address, mesh, *options],
        capture_output=True,
        text=True,
        timeout=_FIND_S,
        check=False,
    )
    answer: dict[str, Any] = json.loads((done.stdout.splitlines() or ["{}"])[-1])
    if done.returncode or not answer or "error" in answer:
        last = (done.stderr.strip().splitlines() or ["no answer"])[-1]
        raise Unavailable(answer.get("error") or last)
    return answer


def parse(endpoints: Iterable[str], variable: str = "") -> tuple[str, ...]:
    """The addresses in strings of one or, with commas, several; each once.

    Raises:
        BadRequest: one is not "host:port", or there is none.
    """
    given = list(endpoints)
    for one in given:
        if not isinstance(one, str):
            raise BadRequest(f'endpoint {one!r:.80} is not "host:port"')
    addresses = dict.fromkeys(a.strip() for e in given for a in e.split(",") if a.strip())
    if not addresses:
        raise BadRequest(
            f'{variable + ": " if variable else ""}name at least one endpoint, such as "127.0.0.1:7400"'
        )
    for address in addresses:
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 65_536:
            where = f" in {variable}" if variable else ""
            raise BadRequest(f'endpoint {address!r}{where} is not "host:port"')
    return tuple(addresses)
