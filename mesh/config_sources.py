"""Where settings come from: defaults, then mesh.toml, then `MESH_*`, then flags; the last one wins.

One name serves all of them: `handlers` under `[mesh]` in the file, MESH_HANDLERS, --handlers. Each
value keeps its origin, so that a mistake is told by the line, the variable or the flag that made it.
The environment and the folder are arguments: nothing is read at import, and a test passes its own.

A secret is never a flag. It stands in the environment, in mesh.toml, or in a file of its own that
`NAME_file` names; the file is opened when the secret is needed and not before.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mesh.config import SETTINGS, MeshConfig
from mesh.config_file import exposed, from_toml
from mesh.config_found import SECRET_FILES, SECRETS, Found, add, named_file, read_secret
from mesh.errors import SetupError
from mesh.settings import ConfigError, Setting, check, hide_secrets, secrets_in
from mesh.timings import PRESETS

FILE_NAME = "mesh.toml"
FILE_VARIABLE = "MESH_CONFIG"
_PRESET = "timing"
_LOCAL = PRESETS[SETTINGS[_PRESET].default]
_CLIENTS_OWN = ("MESH_ENDPOINTS",)
_YES_NO = {
    **dict.fromkeys(("1", "true", "yes", "on"), True),
    **dict.fromkeys(("0", "false", "no", "off"), False),
}


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
        value = read_secret(found.file, found.origin) if found.file else found.value
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
        in_file = from_toml(path)
        found |= in_file
        notes += exposed(path, in_file)
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


def _file(named: str | None, folder: Path) -> Path | None:
    if named:
        return folder / Path(named).expanduser()
    path = folder / FILE_NAME
    return path if path.exists() else None


# ----------------------------------------------------------------------------------------- environment


def _from_environment(variables: Mapping[str, str]) -> dict[str, Found]:
    found: dict[str, Found] = {}
    for name, setting in SETTINGS.items():
        if text := variables.get(setting.variable):
            try:
                add(found, name, Found(parse(setting, text), setting.variable))
            except ValueError as error:
                raise SetupError(f"{setting.variable} {error}{_service_link(text)}") from None
    for key, name in SECRET_FILES.items():
        variable = f"{SETTINGS[name].variable}_FILE"
        if path := variables.get(variable):
            add(found, name, named_file(path, variable, Path(), key))
    return found


def _service_link(text: str) -> str:
    if not text.startswith("tcp://"):
        return ""
    return " (Kubernetes sets this for a service named mesh: set enableServiceLinks: false)"


def _strangers(variables: Mapping[str, str]) -> list[str]:
    """Variables that nearly bear a setting's name. Others may well be somebody else's."""
    files = (f"{SETTINGS[name].variable}_FILE" for name in SECRETS)
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
            found[SECRET_FILES[key]] = named_file(value, flag, Path(), key)
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
