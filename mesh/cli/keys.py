"""mesh keys"""

from __future__ import annotations

import argparse
import json
import sys

from mesh.builtin import MAX_PAGE_KEYS
from mesh.cli.common import add_json, add_settings, find, layers_of, run_async, say, token_of
from mesh.client.aio import connect


def add(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    parser.add_argument("entity", metavar="ENTITY", help="such as KV or Account")
    parser.add_argument("--prefix", metavar="P", default="", help="only keys that begin with it")
    parser.add_argument(
        "--limit", metavar="N", type=_number, default=sys.maxsize, help="print N keys at most"
    )
    add_settings(parser, ("name", "timeout"))
    add_json(parser)
    parser.epilog = (
        "One key a line, in no particular order. A key may be listed twice while the mesh changes. "
        'One that is no UTF-8 is shown as Python writes its bytes, with --json as {"hex": "..."}.'
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the keys of an entity."""
    layers = layers_of(arguments)
    timeout = layers.value("timeout")
    state = find(layers.value("name"))
    shown = _as_json if arguments.json else _as_text

    async def work() -> None:
        async with await connect(*state["endpoints"], token=token_of(state, layers)) as client:
            left, cursor, more = arguments.limit, "", True
            while left and more:
                page = await client.keys(
                    arguments.entity,
                    prefix=arguments.prefix,
                    cursor=cursor,
                    limit=min(left, MAX_PAGE_KEYS),
                    timeout=timeout,
                )
                for key in page.keys:
                    say(shown(key))
                left -= len(page.keys)
                cursor, more = page.cursor, bool(page.cursor)

    run_async(work())
    return 0


def _number(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a whole number from 1 on, not {text!r}")
    return int(text)


def _as_text(key: str | bytes) -> str:
    """One line, whatever is in it."""
    return key if isinstance(key, str) and key.isprintable() else repr(key)


def _as_json(key: str | bytes) -> str:
    return json.dumps(key if isinstance(key, str) else {"hex": key.hex()})
