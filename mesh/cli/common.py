"""What several commands share: finding a running mesh, running async code."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Coroutine
from typing import Any, TypeVar

import uvloop

from mesh import rundir
from mesh.errors import SetupError

T = TypeVar("T")


def add_name(parser: argparse.ArgumentParser) -> None:
    """--name"""
    parser.add_argument("--name", default="default", help="the mesh's name (default: default)")


def add_json(parser: argparse.ArgumentParser) -> None:
    """--json"""
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")


def find(name: str) -> dict[str, Any]:
    """A running mesh's state: endpoints, pid, token.

    Raises:
        SetupError: none of that name runs here.
    """
    state = rundir.read(name)
    if state is None:
        raise SetupError(
            f"no mesh named {name!r} runs on this machine; start it with: mesh up --name {name}"
        )
    if not state.get("endpoints"):
        raise SetupError(f"mesh {name!r} is still starting; try again in a few seconds")
    return state


def token_of(state: dict[str, Any]) -> str:
    """The mesh's secret: from the environment, else as its owner left it for this user."""
    return os.environ.get("MESH_TOKEN") or str(state.get("token", ""))


def run_async(work: Coroutine[Any, Any, T]) -> T:
    """Run async code to its end."""
    return uvloop.run(work)


def say(line: str) -> None:
    """A line of progress, at once."""
    print(line, flush=True)


def complain(line: str) -> None:
    """A line on standard error."""
    print(line, file=sys.stderr, flush=True)
