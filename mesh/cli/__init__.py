"""The command `mesh`. Each sub-command is a module with `add(parser)` and `run(arguments)`."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from importlib import import_module

from mesh.errors import MeshError

COMMANDS = {
    "demo": "bring a mesh up, load it, kill handlers, check that nothing was lost",
    "up": "start a mesh on this machine",
    "down": "end a mesh that was started with --detach",
    "status": "show who is there and who owns what",
    "events": "show what happened: failovers, handovers, starts",
    "call": "call an entity's method, such as: mesh call KV.incr KEY 1",
    "keys": "list an entity's keys, such as: mesh keys Account --prefix a",
    "config": "show every setting, its value, its default and where the value comes from",
}

_CODES = (
    "Exit codes: 0 done, 1 failed (one line on standard error says why), 2 wrong usage, "
    "130 interrupted. `mesh COMMAND --help` tells more about a command."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code.

    A user's mistake is told in one line on standard error, never by a traceback.
    """
    parser = argparse.ArgumentParser(
        prog="mesh",
        description="raymesh: keyed, stateful services that do not go down.",
        epilog=_CODES,
        allow_abbrev=False,
    )
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    arguments_of = sys.argv[1:] if argv is None else list(argv)
    for name, summary in COMMANDS.items():
        # Abbreviated flags would make --token, which is refused, stand for --token-file.
        sub = subparsers.add_parser(
            name,
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
            allow_abbrev=False,
        )
        # Only the command that runs is imported: `mesh status` needs no Ray.
        if name in arguments_of or "--help" in arguments_of or "-h" in arguments_of:
            module = import_module(f"mesh.cli.{name}")
            module.add(sub)
            sub.set_defaults(run=module.run)
    arguments = parser.parse_args(arguments_of)
    try:
        code: int = arguments.run(arguments)
    except MeshError as error:
        print(f"mesh {arguments.command}: {error}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 130
    except BrokenPipeError:
        return 141
    return code
