"""The settings in a mesh.toml: each by its key, and with the line that it stands in.

Everything stands in the table [mesh]; what `mesh config show` has under timing may also stand in a table of
its own, [timing], the preset as `preset`. A key that is none is a mistake and is never passed over: it would
be a setting that its owner believes to be in force.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mesh.config import SETTINGS
from mesh.config_found import SECRET_FILES, SECRETS, Found, add, named_file
from mesh.errors import SetupError
from mesh.settings import Setting, secrets_in
from mesh.timings import PRESETS

_TABLE = "mesh"
_TIMING_TABLE = "timing"
_PRESET = "timing"
"""The setting that is called `preset` in its own table."""
_TIMES = {"preset": _PRESET, **{name: name for name in PRESETS[SETTINGS[_PRESET].default]}}
"""What may stand in that table, and the setting that each is."""


def from_toml(path: Path) -> dict[str, Found]:
    """What a file gives.

    Raises:
        SetupError: it cannot be read, is no TOML, has an unknown key, or gives something twice.
    """
    try:
        text = path.read_text(encoding="utf-8")
        content = tomllib.loads(text)
    except OSError as error:
        raise SetupError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SetupError(f"{path}: is not UTF-8 at byte {error.start}") from error
    except tomllib.TOMLDecodeError as error:
        raise SetupError(f"{path}: is not TOML: {error}") from error
    for key, value in content.items():
        is_table = key == _TIMING_TABLE and isinstance(value, dict)
        if key != _TABLE and not is_table:
            raise SetupError(_out_of_place(path, text, key, value))
    table = content.get(_TABLE, {})
    if not isinstance(table, dict):
        raise SetupError(f"{path}: {_TABLE} must be a table: write [{_TABLE}] on a line of its own")
    lines = _lines_of_keys(text, _TABLE)
    found: dict[str, Found] = {}
    for key, value in table.items():
        origin = _at(Path(path.name), lines.get(key))
        if key in SECRET_FILES:
            add(found, SECRET_FILES[key], named_file(value, origin, path.parent, key, in_toml=True))
        elif key in SETTINGS:
            add(
                found,
                key,
                Found(_from_toml_value(SETTINGS[key], value, path), origin, in_toml=True),
            )
        else:
            nearest = _nearest(key, (*SETTINGS, *SECRET_FILES))
            where = _at(path, lines.get(key))
            raise SetupError(f"{where}: unknown setting {key!r}{nearest}")
    lines = _lines_of_keys(text, _TIMING_TABLE)
    for key, value in content.get(_TIMING_TABLE, {}).items():
        if key not in _TIMES:
            where = _at(path, lines.get(key))
            raise SetupError(f"{where}: unknown time {key!r}{_nearest(key, _TIMES)}")
        add(found, _TIMES[key], Found(value, _at(Path(path.name), lines.get(key)), in_toml=True))
    return found


def _out_of_place(path: Path, text: str, key: str, value: object) -> str:
    where = _at(path, _line_of(text, key))
    if (key in SETTINGS or key in SECRET_FILES) and not isinstance(value, dict):
        return f"{where}: {key!r} stands outside of the table: put [{_TABLE}] on a line above it"
    what = "table" if isinstance(value, dict) else "setting"
    return f"{where}: unknown {what} {key!r}; every setting stands in the table [{_TABLE}]"


def _at(path: Path, line: int | None) -> str:
    return f"{path}:{line}" if line else str(path)


_HEADER = re.compile(r"\s*\[+\s*([^\]]*?)\s*\]")
_KEY = re.compile(r"""\s*["']?([A-Za-z0-9_-]+)["']?\s*=""")


def _lines_of_keys(text: str, of: str) -> dict[str, int]:
    """Lines of the keys in a table; tomllib does not say. Only for messages: a key not found has none."""
    lines: dict[str, int] = {}
    table = ""
    for number, line in enumerate(text.splitlines(), 1):
        if header := _HEADER.match(line):
            table = header[1].strip("\"'")
        elif table == of and (key := _KEY.match(line)):
            lines.setdefault(key[1], number)
    return lines


def _line_of(text: str, key: str) -> int | None:
    for number, line in enumerate(text.splitlines(), 1):
        header, setting = _HEADER.match(line), _KEY.match(line)
        if (header and header[1].split(".")[0] == key) or (setting and setting[1] == key):
            return number
    return None


def _from_toml_value(setting: Setting, value: Any, path: Path) -> Any:
    """As it is meant: a list of modules is joined, a relative path is seen from the file."""
    if setting.kind == "app" and isinstance(value, list) and all(isinstance(v, str) for v in value):
        return ";".join(value)
    if setting.kind == "path" and isinstance(value, str) and value:
        return str(path.parent / Path(value).expanduser())
    return value


def exposed(path: Path, found: Mapping[str, Found]) -> list[str]:
    """A secret in a file that others read is no secret."""
    held = [
        name
        for name, value in found.items()
        if (name in SECRETS and value.file is None)
        or (name == "store" and isinstance(value.value, str) and secrets_in(value.value))
    ]
    if held and path.stat().st_mode & 0o077:
        where = f"{found[held[0]].origin} holds a secret ({held[0]})"
        return [f"{where} and other users can read the file: chmod 600 {path}"]
    return []


def _nearest(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, known, 1)
    if close:
        return f"; did you mean {close[0]!r}?"
    return "; `mesh config show` lists them all"
