"""Where settings come from: defaults, then mesh.toml, then `MESH_*`, then flags; the last one wins.

One name serves all of them: `handlers` under `[mesh]` in the file, MESH_HANDLERS, --handlers. What is in
`mesh config show` under timing may also stand in a table of its own, [timing], the preset as `preset`. Each
value keeps its origin, so that a mistake is told by the line, the variable or the flag that made it.
The environment and the folder are arguments: nothing is read at import, and a test passes its own.

A secret is never a flag. It stands in the environment, in mesh.toml, or in a file of its own that
`NAME_file` names; the file is opened when the secret is needed and not before.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mesh.config import SETTINGS, MeshConfig
from mesh.errors import SetupError
from mesh.settings import ConfigError, Setting, check, hide_secrets, secrets_in
from mesh.timings import PRESETS

FILE_NAME = "mesh.toml"
FILE_VARIABLE = "MESH_CONFIG"
_TABLE = "mesh"
_TIMING_TABLE = "timing"
_PRESET = "timing"
"""The setting that is called `preset` in its own table."""
_LOCAL = PRESETS[SETTINGS[_PRESET].default]
_TIMES = {"preset": _PRESET, **{name: name for name in _LOCAL}}
"""What may stand in that table, and the setting that each is."""
_CLIENTS_OWN = ("MESH_ENDPOINTS",)
_MAX_SECRET_BYTES = 65_536
_YES_NO = {
    **dict.fromkeys(("1", "true", "yes", "on"), True),
    **dict.fromkeys(("0", "false", "no", "off"), False),
}
_SECRETS = tuple(name for name, setting in SETTINGS.items() if setting.secret)
SECRET_FILES = {f"{name}_file": name for name in _SECRETS}
"""Settings that name the file of a secret."""


@dataclass(frozen=True, slots=True)
class Found:
    """A value and where it stood. `file`: a secret is in there, `value` is empty."""

    value: Any
    origin: str
    in_toml: bool = False
    file: Path | None = None


@dataclass(frozen=True, slots=True)
class Shown:
    """A setting as `mesh config show` prints it; a secret only tells whether it is set."""

    name: str
    value: Any
    default: Any
    origin: str
    about: str
    group: str


class Layers:
    """What every source together says. Made by `gather`.

    Attributes:
        file: the mesh.toml that was read, None without one.
        notes: what is no error and yet seldom meant.
    """

    def __init__(
        self, found: Mapping[str, Found], file: Path | None, notes: tuple[str, ...]
    ) -> None:
        self._found = found
        self.file = file
        self.notes = notes

    def origin(self, name: str) -> str:
        """Where that setting's value comes from; "default" where nobody says otherwise."""
        return self._found[name].origin if name in self._found else "default"

    def overrides(self, name: str) -> bool:
        """Whether a flag or the environment says it, and not only mesh.toml."""
        return name in self._found and not self._found[name].in_toml

    def value(self, name: str) -> Any:
        """One setting's value, read from its file if it is a secret in one.

        Raises:
            SetupError: it is of the wrong type or out of bounds, or its file cannot be read.
        """
        setting, found = SETTINGS[name], self._found.get(name)
        if found is None:
            return setting.default
        value = _secret(found.file, found.origin) if found.file else found.value
        try:
            check(setting, value)
        except ConfigError as error:
            raise error.naming(self._label) from None
        return value

    def config(self) -> MeshConfig:
        """All settings together.

        Raises:
            SetupError: one is wrong, or two contradict each other; names where they stand.
        """
        values = {name: self.value(name) for name in self._found}
        try:
            return MeshConfig(**values)
        except ConfigError as error:
            raise error.naming(self._label) from None

    def shown(self) -> list[Shown]:
        """Every setting, in the order in which they are declared; no secret is among it."""
        preset = self._preset()
        return [
            Shown(
                name,
                preset.get(name) if self._is_unset(name) else self._shown_value(setting),
                "not set" if setting.secret else _LOCAL.get(name, setting.default),
                self._shown_origin(name, preset),
                setting.about,
                setting.group,
            )
            for name, setting in SETTINGS.items()
        ]

    def _preset(self) -> Mapping[str, float]:
        """The times that apply where nobody sets another."""
        found = self._found.get(_PRESET)
        return PRESETS.get(str(found.value), {}) if found is not None else _LOCAL

    def _is_unset(self, name: str) -> bool:
        return name in _LOCAL and name not in self._found

    def _shown_origin(self, name: str, preset: Mapping[str, float]) -> str:
        if self._is_unset(name) and preset.get(name) != _LOCAL[name]:
            return f"{_PRESET} ({self.origin(_PRESET)})"
        return self.origin(name)

    def _shown_value(self, setting: Setting) -> Any:
        found = self._found.get(setting.name)
        if setting.secret:
            return "not set" if found is None else f"set ({found.origin})"
        value = setting.default if found is None else found.value
        return hide_secrets(value) if setting.name == "store" and isinstance(value, str) else value

    def _label(self, name: str) -> str:
        found = self._found.get(name)
        if found is None or found.in_toml:
            return f"{name} ({self.origin(name)})"
        return found.origin


def gather(
    flags: Mapping[str, Any],
    environment: Mapping[str, str],
    *,
    folder: Path,
    file: str | None = None,
) -> Layers:
    """Read every source.

    Args:
        flags: values of settings, and of `token_file` and the like, that the command line gave.
        environment: variables; an empty one counts as not set.
        folder: where mesh.toml is looked for.
        file: it instead; has to exist. Without it MESH_CONFIG names it.

    Raises:
        SetupError: a file cannot be read or has an unknown key; a value is not what it should be;
            a secret is given twice in one place, or stands on the command line.
    """
    variables = {name: text for name, text in environment.items() if text}
    path = _file(file or variables.get(FILE_VARIABLE), folder)
    found: dict[str, Found] = {}
    notes: list[str] = []
    if path is not None:
        in_file = _from_toml(path)
        found |= in_file
        notes += _exposed(path, in_file)
    found |= _from_environment(variables)
    found |= _from_flags(flags)
    notes += _strangers(variables)
    return Layers(found, path, tuple(notes))


def parse(setting: Setting, text: str) -> Any:
    """A setting's value from text.

    Raises:
        ValueError: it is none; the message goes behind the setting's name.
    """
    if setting.kind == "number":
        try:
            return int(text)
        except ValueError:
            raise ValueError(f"must be a whole number, not {text!r}") from None
    if setting.kind == "seconds":
        try:
            return float(text)
        except ValueError:
            raise ValueError(f"must be a number of seconds, not {text!r}") from None
    if setting.kind == "yes or no":
        try:
            return _YES_NO[text.lower()]
        except KeyError:
            raise ValueError(f"must be true or false, not {text!r}") from None
    return text


# ------------------------------------------------------------------------------------------- mesh.toml


def _file(named: str | None, folder: Path) -> Path | None:
    if named:
        return folder / Path(named).expanduser()
    path = folder / FILE_NAME
    return path if path.exists() else None


def _from_toml(path: Path) -> dict[str, Found]:
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
            _add(
                found, SECRET_FILES[key], _named_file(value, origin, path.parent, key, in_toml=True)
            )
        elif key in SETTINGS:
            _add(
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
        _add(found, _TIMES[key], Found(value, _at(Path(path.name), lines.get(key)), in_toml=True))
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


def _nearest(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, known, 1)
    if close:
        return f"; did you mean {close[0]!r}?"
    return "; `mesh config show` lists them all"


def _exposed(path: Path, found: Mapping[str, Found]) -> list[str]:
    """A secret in a file that others read is no secret."""
    held = [
        name
        for name, value in found.items()
        if (name in _SECRETS and value.file is None)
        or (name == "store" and isinstance(value.value, str) and secrets_in(value.value))
    ]
    if held and path.stat().st_mode & 0o077:
        where = f"{found[held[0]].origin} holds a secret ({held[0]})"
        return [f"{where} and other users can read the file: chmod 600 {path}"]
    return []


# ----------------------------------------------------------------------------------------- environment


def _from_environment(variables: Mapping[str, str]) -> dict[str, Found]:
    found: dict[str, Found] = {}
    for name, setting in SETTINGS.items():
        if text := variables.get(setting.variable):
            try:
                _add(found, name, Found(parse(setting, text), setting.variable))
            except ValueError as error:
                raise SetupError(f"{setting.variable} {error}{_service_link(text)}") from None
    for key, name in SECRET_FILES.items():
        variable = f"{SETTINGS[name].variable}_FILE"
        if path := variables.get(variable):
            _add(found, name, _named_file(path, variable, Path(), key))
    return found


def _service_link(text: str) -> str:
    if not text.startswith("tcp://"):
        return ""
    return " (Kubernetes sets this for a service named mesh: set enableServiceLinks: false)"


def _strangers(variables: Mapping[str, str]) -> list[str]:
    """Variables that nearly bear a setting's name. Others may well be somebody else's."""
    files = (f"{SETTINGS[name].variable}_FILE" for name in _SECRETS)
    own = {s.variable for s in SETTINGS.values()} | {FILE_VARIABLE, *_CLIENTS_OWN, *files}
    notes = []
    for variable in sorted(v for v in variables if v.startswith("MESH_") and v not in own):
        close = difflib.get_close_matches(variable, own, 1, 0.85)
        if close:
            notes.append(f"{variable} is not a setting and is ignored; did you mean {close[0]}?")
    return notes


# ----------------------------------------------------------------------------------------------- flags


def _from_flags(flags: Mapping[str, Any]) -> dict[str, Found]:
    found: dict[str, Found] = {}
    for key, value in flags.items():
        if key in SECRET_FILES:
            flag = "--" + key.replace("_", "-")
            found[SECRET_FILES[key]] = _named_file(value, flag, Path(), key)
        else:
            found[key] = Found(value, SETTINGS[key].flag)
    store = found.get("store")
    if store is not None and secrets_in(store.value):
        raise SetupError(
            "--store holds a password, and every user of this machine can read the command line: put "
            "the address into MESH_STORE or into mesh.toml, or the password alone into "
            "MESH_STORE_PASSWORD or the file that MESH_STORE_PASSWORD_FILE names"
        )
    return found


# --------------------------------------------------------------------------------------------- secrets


def _add(found: dict[str, Found], name: str, value: Found) -> None:
    """Within one source nothing says which of two should win."""
    if name in found:
        raise SetupError(
            f"{found[name].origin} and {value.origin} both give the {name}: keep one of them"
        )
    found[name] = value


def _named_file(path: Any, origin: str, folder: Path, key: str, *, in_toml: bool = False) -> Found:
    if not isinstance(path, str) or not path:
        raise SetupError(f"{key} ({origin}) must be the path of a file, not {path!r}")
    return Found(None, origin, in_toml, folder / Path(path).expanduser())


def _secret(path: Path, origin: str) -> str:
    """The one line of a file. What it holds is in no message."""
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_SECRET_BYTES + 1).decode().strip()
    except OSError as error:
        raise SetupError(f"{origin}: {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SetupError(f"{origin}: {path} is not text") from None
    if not text or len(text.splitlines()) > 1 or len(text) > _MAX_SECRET_BYTES:
        problem = "is empty" if not text else "holds more than one line"
        raise SetupError(f"{origin}: {path} {problem}; write the secret, and nothing else, in it")
    return text
