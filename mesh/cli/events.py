"""mesh events"""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime
from typing import Any

from mesh.cli.common import (
    add_json,
    add_name,
    complain,
    find,
    layers_of,
    run_async,
    say,
    token_of,
)
from mesh.client.tool import ask, follow
from mesh.wording import in_words


def add(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    add_name(parser)
    add_json(parser)
    parser.add_argument("--follow", action="store_true", help="go on printing as things happen")


def run(arguments: argparse.Namespace) -> int:
    """Print the events."""
    layers = layers_of(arguments)
    state = find(layers.value("name"))

    def show(event: dict[str, Any]) -> None:
        say(json.dumps(event) if arguments.json else render(event))

    async def work() -> None:
        endpoints, token = state["endpoints"], token_of(state, layers)
        for event in await ask(endpoints, "events", token=token):
            show(event)
        if arguments.follow:
            async for event in follow(endpoints, token=token, tell=complain):
                show(event)

    run_async(work())
    return 0


def render(event: dict[str, Any]) -> str:
    """An event as people read it."""
    at = datetime.fromtimestamp(event["at"], UTC).astimezone().strftime("%H:%M:%S.%f")[:-3]
    return f"{at}  {in_words(event)}"
