"""mesh config show"""

from __future__ import annotations

import argparse
import json
from itertools import groupby

from mesh.cli.common import EPILOG, add_json, add_settings, complain, layers_of, say, shown
from mesh.config import SETTINGS
from mesh.config_sources import Layers, Shown

_MOST_WIDTH = 44


def add(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    summary = "show what `mesh up` with the same flags would be told"
    show = actions.add_parser(
        "show",
        help=summary,
        description=summary[0].upper() + summary[1:] + ". Secrets are never shown.",
        allow_abbrev=False,
    )
    add_json(show)
    add_settings(show)
    show.epilog = EPILOG


def run(arguments: argparse.Namespace) -> int:
    """Print every setting; then fail if they cannot stand together."""
    layers = layers_of(arguments)
    say(_as_json(layers) if arguments.json else render(layers))
    for note in layers.notes:
        complain(f"note: {note}")
    config = layers.config()
    if not arguments.json:
        say(f"\ndata:  {config.data_folder}\nlog:   {config.log_path}")
    return 0


def render(layers: Layers) -> str:
    """The table that people read."""
    rows = [
        (s.group, s.name, _shown(s.value, s), s.origin, _shown(s.default, s))
        for s in layers.shown()
    ]
    widths = [min(_MOST_WIDTH, max(len(row[i]) for row in rows)) for i in (1, 2, 3)]

    def line(*cells: str) -> str:
        *first, last = cells
        padded = (f"{cell:{width}}" for cell, width in zip(first, widths, strict=True))
        return "  ".join((*padded, last)).rstrip()

    lines = [
        f"settings file: {layers.file or 'none (no mesh.toml in this folder)'}",
        "",
        line("SETTING", "VALUE", "FROM", "DEFAULT"),
    ]
    for _, group in groupby(rows, key=lambda row: row[0]):
        lines += [line(*cells) for _, *cells in group] + [""]
    return "\n".join(lines[:-1])


def _shown(value: object, setting: Shown) -> str:
    return shown(value, SETTINGS[setting.name])


def _as_json(layers: Layers) -> str:
    settings = {
        s.name: {"value": s.value, "default": s.default, "from": s.origin, "about": s.about}
        for s in layers.shown()
    }
    # `str` for what TOML can hold and no setting can be, such as a date: the mistake is told afterwards.
    file = str(layers.file) if layers.file else None
    return json.dumps({"file": file, "settings": settings}, default=str)
