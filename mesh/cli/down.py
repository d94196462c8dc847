"""mesh down"""

from __future__ import annotations

import argparse

from mesh.cli.common import add_settings, layers_of, say
from mesh.lifecycle import down


def add(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    add_settings(parser, ("name", "ray"))


def run(arguments: argparse.Namespace) -> int:
    """Tell the process that owns the mesh to take it down, and wait until it has."""
    layers = layers_of(arguments)
    name, ray = layers.value("name"), layers.value("ray")
    down(name, ray=None if ray == "local" else ray)
    say(f"mesh {name} is down; its data is kept")
    return 0
