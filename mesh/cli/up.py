"""mesh up"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
from types import FrameType

from mesh.cli.common import add_json, add_name, complain, say, token_of
from mesh.cli.status import render, run_status
from mesh.config import MeshConfig
from mesh.errors import SetupError
from mesh.launch import Launched, launch


def add(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    add_name(parser)
    add_json(parser)
    d = MeshConfig()
    parser.add_argument("--handlers", type=int, default=d.handlers, metavar="N", help="default: 4")
    parser.add_argument(
        "--partitions", type=int, metavar="P", help="fixed when a mesh is created (default: 256)"
    )
    parser.add_argument(
        "--app",
        default=d.app,
        metavar="MODULE[:CLASS,...]",
        help="your entities; KV is always there",
    )
    parser.add_argument(
        "--store",
        default=os.environ.get("MESH_STORE", d.store),
        metavar="STORE",
        help="embedded (default) or redis://HOST:PORT; one with a password goes into MESH_STORE",
    )
    parser.add_argument(
        "--durability",
        default=d.durability,
        help="replicated, fsynced, process, or auto (default): the best that the store can do, "
        "but never process",
    )
    parser.add_argument(
        "--ray", default=d.ray, metavar="RAY", help="local (default), auto, or an address"
    )
    parser.add_argument(
        "--port", type=int, default=d.port, help="of the supervisor (default: 7400)"
    )
    parser.add_argument("--host", default=d.host, help="address to listen on (default: 127.0.0.1)")
    parser.add_argument(
        "--data-dir", metavar="DIR", help="where the embedded store keeps its files"
    )
    parser.add_argument(
        "--no-dashboard", dest="dashboard", action="store_false", help="no Ray dashboard"
    )
    parser.add_argument(
        "--detach", action="store_true", help="return once the mesh is ready; end it with mesh down"
    )


def run(arguments: argparse.Namespace) -> int:
    """Start a mesh; stay with it, or leave it to itself."""
    config = MeshConfig(
        name=arguments.name,
        handlers=arguments.handlers,
        partitions=arguments.partitions,
        app=arguments.app,
        store=arguments.store,
        durability=arguments.durability,
        ray=arguments.ray,
        dashboard=arguments.dashboard,
        host=arguments.host,
        port=arguments.port,
        data_dir=arguments.data_dir,
        token=token_of({}),
    )
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGHUP, _interrupt)
    quiet = arguments.json
    progress = (lambda _: None) if quiet else complain
    mesh = launch(config, tethered=not arguments.detach, progress=progress)
    say(json.dumps(mesh.status) if quiet else render(run_status(config.name)))
    return 0 if arguments.detach else _stay(mesh, quiet=quiet)


def _stay(mesh: Launched, *, quiet: bool) -> int:
    if not quiet:
        complain("Ctrl-C ends it and everything it started.")
    with contextlib.suppress(KeyboardInterrupt):
        code = mesh.process.wait()
        raise SetupError(f"the mesh ended by itself, with code {code}; see {mesh.log}")
    if not quiet:
        complain("taking the mesh down ...")
    mesh.stop()
    return 0


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
