"""What a setting is: how it is written, in which bounds it lies, and how it is told of when it is wrong."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal
from urllib.parse import unquote

from mesh.errors import SetupError

Kind = Literal["text", "number", "seconds", "yes or no", "path", "app"]


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting, as users meet it.

    Attributes:
        name: the key in mesh.toml; `MESH_NAME` and `--name` are made from it.
        about: unit, what zero or none means, what follows from it; for `--help`.
        kind: how it is written.
        group: the heading under which `--help` and `mesh config show` list it.
        secret: comes from a file or the environment, is never a flag and never shown.
        least, most: bounds, both allowed.
        variable: of the environment.
    """

    name: str
    default: Any
    about: str
    kind: Kind = "text"
    group: str = "mesh"
    metavar: str = ""
    secret: bool = False
    least: float = -math.inf
    most: float = math.inf
    choices: tuple[str, ...] = ()
    variable: str = ""

    @property
    def flag(self) -> str:
        """As the command line knows it."""
        return "--" + self.name.replace("_", "-")


class Ref(str):
    """A setting's name within the parts of a ConfigError's message."""

    __slots__ = ()


class ConfigError(SetupError):
    """A setting is wrong, or two do not go together.

    Its message is kept in parts, so that whoever knows where a value came from can name the flag,
    the variable or the line of the file in the place of the bare setting.
    """

    def __init__(self, *parts: str) -> None:
        super().__init__("".join(parts))
        self.parts = parts

    def naming(self, label: Callable[[str], str]) -> SetupError:
        """The same error, with each setting called what `label` makes of its name."""
        return SetupError("".join(label(p) if isinstance(p, Ref) else p for p in self.parts))


def setting(default: Any, about: str, *, shown: bool = True, **more: Any) -> Any:
    """A dataclass field that is a setting; `more` are attributes of `Setting`, `shown` is for its repr."""
    known = Setting("", default, about, **more)
    return field(default=default, repr=shown and not known.secret, metadata={"setting": known})


def settings_of(config: type) -> dict[str, Setting]:
    """The settings among a dataclass's fields, by name."""
    # What a base class adds is more special than what the class itself says, and comes behind it.
    ordered = sorted(fields(config), key=lambda f: f.kw_only is True)
    known = {f.name: f.metadata["setting"] for f in ordered}
    return {
        name: replace(found, name=name, variable=found.variable or f"MESH_{name.upper()}")
        for name, found in known.items()
    }


_TYPES: Mapping[Kind, tuple[tuple[type, ...], str]] = {
    "number": ((int,), "a whole number"),
    "seconds": ((int, float), "a number of seconds"),
    "yes or no": ((bool,), "true or false"),
}
_TEXT = (str,), "a text"


def check(setting: Setting, value: Any) -> None:
    """Refuse what the setting cannot be.

    Raises:
        ConfigError: it is of another type, or out of bounds.
    """
    types, called = _TYPES.get(setting.kind, _TEXT)
    if value is None and setting.default is None:
        return
    if type(value) not in types:  # not isinstance: True is an int
        shown = type(value).__name__ if setting.secret else repr(value)
        raise ConfigError(Ref(setting.name), f" must be {called}, not {shown}")
    if setting.choices and value not in setting.choices:
        *others, last = setting.choices
        raise ConfigError(Ref(setting.name), f" {value!r}: choose {', '.join(others)} or {last}")
    if setting.kind not in ("number", "seconds"):
        return
    if not setting.least <= value <= setting.most:  # nan is in no bounds
        if setting.most == math.inf:
            bounds = f"{_figure(setting.least)} or more"
        else:
            bounds = f"{_figure(setting.least)} to {_figure(setting.most)}"
        unit = " s" if setting.kind == "seconds" else ""
        raise ConfigError(Ref(setting.name), f" must be {bounds}{unit}, not {value}")


def _figure(number: float) -> str:
    return str(int(number)) if number == int(number) else f"{number:g}"


# Up to the last @, since a password that was not escaped may hold any character.
_LOGIN = re.compile(r"^(?P<scheme>[A-Za-z0-9+.-]+:/+|)(?P<login>.*)@", re.DOTALL)
_QUERY_SECRET = re.compile(r"(?P<name>[?&](?:\w*_)?password=)(?P<secret>[^&#]*)", re.IGNORECASE)


def secrets_in(url: str) -> tuple[str, ...]:
    """The passwords in a store's address, as they are written there and as they are meant."""
    login = _LOGIN.match(url)
    found = [login["login"].partition(":")[2]] if login else []
    found += [option["secret"] for option in _QUERY_SECRET.finditer(url)]
    return tuple(dict.fromkeys(filter(None, (*found, *map(unquote, found)))))


def hide_secrets(url: str) -> str:
    """A store's address as it may be shown: "***" for the login and for passwords among its options."""
    hidden = _QUERY_SECRET.sub(r"\g<name>***", url)
    return _LOGIN.sub(r"\g<scheme>***@", hidden)
