"""mesh events"""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime
from typing import Any

from mesh.cli.common import add_json, add_name, find, run_async, say, token_of
from mesh.client.tool import Tool


def add(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    add_name(parser)
    add_json(parser)
    parser.add_argument("--follow", action="store_true", help="go on printing as things happen")


def run(arguments: argparse.Namespace) -> int:
    """Print the events."""
    state = find(arguments.name)

    def show(event: dict[str, Any]) -> None:
        say(json.dumps(event) if arguments.json else render(event))

    async def work() -> None:
        tool = await Tool.open(state["endpoints"][0], token=token_of(state))
        try:
            for event in await tool.ask("events"):
                show(event)
            if arguments.follow:
                async for event in tool.follow():
                    show(event)
        finally:
            tool.close()

    run_async(work())
    return 0


def render(event: dict[str, Any]) -> str:
    """An event as people read it."""
    at = datetime.fromtimestamp(event["at"], UTC).astimezone().strftime("%H:%M:%S.%f")[:-3]
    rest = {k: v for k, v in event.items() if k not in ("kind", "at", "phases_ms")}
    words = "  ".join(f"{k} {_plain(v)}" for k, v in rest.items())
    phases = event.get("phases_ms")
    if phases:
        total = sum(phases.values())
        words += f"  in {total:.1f} ms: " + ", ".join(f"{k} {v:.1f}" for k, v in phases.items())
    return f"{at}  {event['kind']:20}{words}"


def _plain(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
