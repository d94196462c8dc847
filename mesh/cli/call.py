"""mesh call"""

from __future__ import annotations

import argparse
import json
from typing import Any

from mesh.cli.common import add_json, add_settings, find, layers_of, run_async, say, token_of
from mesh.client.aio import connect
from mesh.errors import BadRequest


def add(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    parser.add_argument(
        "method", metavar="ENTITY.METHOD", help="such as KV.incr or Account.deposit"
    )
    parser.add_argument("key", metavar="KEY", help="of the entity, 1 to 512 bytes")
    parser.add_argument(
        "args",
        metavar="JSON",
        nargs="*",
        help="the method's arguments, each as JSON: 5, '\"text\"', '[1, 2]'",
    )
    add_settings(parser, ("name", "timeout"))
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Call, and print the reply as JSON."""
    layers = layers_of(arguments)
    timeout = layers.value("timeout")
    state = find(layers.value("name"))
    args = [_read(text) for text in arguments.args]

    async def work() -> Any:
        async with await connect(*state["endpoints"], token=token_of(state, layers)) as client:
            return await client.call(arguments.method, arguments.key, *args, timeout=timeout)

    say(json.dumps(_plain(run_async(work()))))
    return 0


def _plain(value: Any) -> Any:
    """The reply as JSON has it: what JSON does not know, such as bytes, as Python writes it."""
    if isinstance(value, dict):
        return {k if isinstance(k, str) else repr(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value if value is None or isinstance(value, str | int | float) else repr(value)


def _read(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise BadRequest(
            f"argument {text!r} is not JSON; write a string with its quotes: '\"{text}\"'"
        ) from None
