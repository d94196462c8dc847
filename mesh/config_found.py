"""A setting's value, and where it stood: what the sources of settings have in common.

Within one source nothing says which of two values should win, so there is but one. A secret may stand in a
file of its own; where it was named is kept, and the file is opened when the secret is needed and not before.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mesh.config import SETTINGS
from mesh.errors import SetupError

_MAX_SECRET_BYTES = 65_536
SECRETS = tuple(name for name, setting in SETTINGS.items() if setting.secret)
SECRET_FILES = {f"{name}_file": name for name in SECRETS}
"""Settings that name the file of a secret."""


@dataclass(frozen=True, slots=True)
class Found:
    """A value and where it stood. `file`: a secret is in there, `value` is empty."""

    value: Any
    origin: str
    in_toml: bool = False
    file: Path | None = None


def add(found: dict[str, Found], name: str, value: Found) -> None:
    """Within one source nothing says which of two should win."""
    if name in found:
        raise SetupError(
            f"{found[name].origin} and {value.origin} both give the {name}: keep one of them"
        )
    found[name] = value


def named_file(path: Any, origin: str, folder: Path, key: str, *, in_toml: bool = False) -> Found:
    """A secret that stands in the file of that path, seen from that folder.

    Raises:
        SetupError: it is no path.
    """
    if not isinstance(path, str) or not path:
        raise SetupError(f"{key} ({origin}) must be the path of a file, not {path!r}")
    return Found(None, origin, in_toml, folder / Path(path).expanduser())


def read_secret(path: Path, origin: str) -> str:
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
