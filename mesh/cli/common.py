"""What several commands share: settings, finding a running mesh, running async code."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Coroutine, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import uvloop

from mesh import rundir
from mesh.config import SETTINGS
from mesh.config_found import SECRET_FILES
from mesh.config_sources import Layers, gather, parse
from mesh.errors import SetupError
from mesh.settings import Setting

T = TypeVar("T")

_KIB = 1024
_HEADINGS = {
    "mesh": "the mesh",
    "store": "its store",
    "limits": "limits and time-outs",
    "log": "its log",
}
EPILOG = (
    "Each setting may also stand in mesh.toml, under [mesh], and in the environment: handlers = 4, "
    "MESH_HANDLERS=4, --handlers 4; the last of them wins. Secrets are never flags: MESH_TOKEN and "
    "MESH_STORE_PASSWORD hold them, MESH_TOKEN_FILE and MESH_STORE_PASSWORD_FILE name their files."
)


def add_json(parser: argparse.ArgumentParser) -> None:
    """--json"""
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")


def add_name(parser: argparse.ArgumentParser) -> None:
    """What every command about a running mesh takes: --name, --token-file, --config."""
    add_settings(parser, ("name",))


def add_settings(parser: argparse.ArgumentParser, names: Iterable[str] = tuple(SETTINGS)) -> None:
    """Flags for these settings, under their headings; all of them unless named."""
    wanted = list(names)
    grouped = len(wanted) > len(_HEADINGS)
    parser.epilog = EPILOG if grouped else None
    for group, heading in _HEADINGS.items():
        flags = [SETTINGS[name] for name in wanted if SETTINGS[name].group == group]
        place = parser.add_argument_group(heading) if grouped else parser
        for setting in flags:
            if not setting.secret:
                _add_flag(place, setting)
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="settings (default: mesh.toml in this folder, if there is one; also MESH_CONFIG)",
    )
    for flag, secret in SECRET_FILES.items():
        if secret in wanted or secret == "token":  # noqa: S105 - a setting's name
            parser.add_argument(
                "--" + flag.replace("_", "-"),
                metavar="FILE",
                default=argparse.SUPPRESS,
                help=f"file that holds the {_SECRETS[secret]}, on one line",
            )
        parser.add_argument(
            SETTINGS[secret].flag, action=_Refused, nargs="?", help=argparse.SUPPRESS
        )


class _Refused(argparse.Action):
    """A secret as a flag. Its value is in no message."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        variable = SETTINGS[self.dest].variable
        parser.error(
            f"{option_string} is refused: every user of this machine can read the command line. Put the "
            f"secret into {variable}, or into a file that {variable}_FILE or {option_string}-file names"
        )


def _add_flag(place: argparse._ActionsContainer, setting: Setting) -> None:
    about = setting.about.replace("%", "%%")
    if setting.default not in (None, ""):
        about += f" (default: {shown(setting.default, setting)})"
    if setting.kind == "yes or no":
        place.add_argument(
            setting.flag,
            action=argparse.BooleanOptionalAction,
            default=argparse.SUPPRESS,
            help=about,
        )
        return
    place.add_argument(
        setting.flag,
        type=_reader(setting),
        metavar=setting.metavar or "|".join(setting.choices) or _METAVARS.get(setting.kind, "NAME"),
        default=argparse.SUPPRESS,
        help=about,
    )


_SECRETS = {"token": "token", "store_password": "store's password"}
_METAVARS = {"number": "N", "seconds": "S"}


def _reader(setting: Setting) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        try:
            return parse(setting, text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read


def shown(value: Any, setting: Setting) -> str:
    """A setting's value as people read it."""
    if value is None:
        return "unset"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if setting.name.endswith("_bytes") and isinstance(value, int):
        for unit, size in (("GiB", _KIB**3), ("MiB", _KIB**2), ("KiB", _KIB)):
            if value >= size and value % size == 0:
                return f"{value} = {value // size} {unit}"
    if isinstance(value, float):
        return f"{value:g}" if abs(value) < 1e6 else f"{value:.0f}"
    return str(value) or "none"


def layers_of(arguments: argparse.Namespace) -> Layers:
    """What the command's flags, the environment and mesh.toml say together; see `gather`."""
    given = vars(arguments)
    flags = {n: v for n, v in given.items() if n in SETTINGS or n in SECRET_FILES}
    flags = {n: v for n, v in flags.items() if n not in SECRET_FILES.values()}
    return gather(flags, os.environ, folder=Path.cwd(), file=given.get("config"))


def find(name: str) -> dict[str, Any]:
    """A running mesh's state: endpoints, pid, token, log.

    Raises:
        SetupError: none of that name runs here.
    """
    state = rundir.read(name)
    if state is None:
        raise SetupError(
            f"no mesh named {name!r} runs on this machine; start it with: mesh up --name {name}"
        )
    if not state.get("endpoints"):
        raise SetupError(f"mesh {name!r} is still starting; try again in a few seconds")
    return state


def token_of(state: dict[str, Any], layers: Layers) -> str:
    """The mesh's secret: as a flag or the environment says, else as its owner left it for this user."""
    if layers.overrides("token"):
        return str(layers.value("token"))
    return str(state.get("token") or layers.value("token"))


def run_async(work: Coroutine[Any, Any, T]) -> T:
    """Run async code to its end."""
    return uvloop.run(work)


def say(line: str) -> None:
    """A line of progress, at once."""
    print(line, flush=True)


def complain(line: str) -> None:
    """A line on standard error."""
    print(line, file=sys.stderr, flush=True)
