"""mesh down"""

from __future__ import annotations

import argparse
import os
import select
import signal

from mesh import rundir
from mesh.cli.common import add_name, layers_of, say
from mesh.errors import SetupError

_PATIENCE_S = 60.0


def add(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    add_name(parser)


def run(arguments: argparse.Namespace) -> int:
    """Tell the process that owns the mesh to take it down, and wait until it has."""
    name = layers_of(arguments).value("name")
    state = rundir.read(name)
    if state is None:
        raise SetupError(f"no mesh named {name!r} runs on this machine; there is nothing to end")
    pid = state.get("pid")
    if pid is None:
        raise SetupError(f"mesh {name!r} is still starting; try again in a few seconds")
    try:
        # A descriptor, not the number: it cannot come to mean another process while we wait.
        pidfd = os.pidfd_open(pid)
        signal.pidfd_send_signal(pidfd, signal.SIGTERM)
    except ProcessLookupError:
        raise SetupError(f"mesh {name!r} has just ended by itself") from None
    ended, _, _ = select.select([pidfd], [], [], _PATIENCE_S)
    os.close(pidfd)
    if not ended:
        raise SetupError(
            f"mesh {name!r} (pid {pid}) did not end within {_PATIENCE_S:g} s; "
            f"its processes may be stopped: look at `ps -p {pid}` and at {state.get('log')}"
        )
    say(f"mesh {name} is down; its data is kept")
    return 0
