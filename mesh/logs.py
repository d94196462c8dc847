r"""The log of a mesh: one file for all its processes on a machine, one line an event.

    2026-11-23 03:12:09.118+0100  supervisor s-0  WARNING  h-2 (pid 812) died: 64 partitions went to ...

When, who, how grave, what. Every process appends to the same file, so it reads from top to bottom as it
happened; a line is one write, and lines of different processes do not mix. What a message brings along
from outside cannot begin a line of its own: its line breaks are shown as \n. A secret that comes
along, in an address or in somebody's exception, is written as ***.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Collection
from logging.handlers import WatchedFileHandler
from pathlib import Path

MAX_BYTES = 16 * 1024 * 1024
"""A log larger than this is put aside when the mesh is started; one earlier log is kept."""

_SHORTEST_SECRET = 4
"""Anything shorter would be found in half of all words, and tells by its absence what it is."""

_TALKATIVE = ("asyncio", "filelock", "ray", "redis", "urllib3")
_OURS = ("mesh", "actors")


class LineFormatter(logging.Formatter):
    """One event, one line; a traceback follows it, indented.

    Args:
        who: role and id of this process, such as "handler h-0".
        secrets: texts that are never written.
    """

    def __init__(self, who: str, secrets: Collection[str] = ()) -> None:
        super().__init__()
        self._who = who
        # The longest first: one may be part of another.
        self._secrets = sorted((s for s in secrets if len(s) >= _SHORTEST_SECRET), key=len)[::-1]

    def format(self, record: logging.LogRecord) -> str:
        """See logging.Formatter."""
        message = record.getMessage()
        if record.name.partition(".")[0] not in _OURS:
            message = f"{record.name}: {message}"
        at = time.localtime(record.created)
        moment = f"{time.strftime('%Y-%m-%d %H:%M:%S', at)}.{record.msecs:03.0f}{time.strftime('%z', at)}"
        message = message.rstrip().replace("\r", "\\r").replace("\n", "\\n")
        text = f"{moment}  {self._who:14}  {record.levelname:7}  {message}"
        if record.exc_info:
            trace = self.formatException(record.exc_info)
            text += "".join(f"\n    {line}" for line in trace.splitlines())
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


def set_up(who: str, *, level: str, path: Path | None, secrets: Collection[str] = ()) -> None:
    """Have this process log. For processes of the mesh only: an application's logging is its own.

    Args:
        who: role and id of this process.
        level: least weight, such as "info".
        path: the file, its folder made if need be; None, or one that cannot be written, leaves
            standard error.
        secrets: texts that are never written.
    """
    handler, problem = _handler(path)
    handler.setFormatter(LineFormatter(who, secrets))
    root = logging.getLogger()
    for earlier in [h for h in root.handlers if isinstance(h.formatter, LineFormatter)]:
        root.removeHandler(earlier)
        earlier.close()
    root.addHandler(handler)
    root.setLevel(level.upper())
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    if problem is not None:
        logging.getLogger("mesh.logs").warning("no log in %s (%s); it comes here", path, problem)


def _handler(path: Path | None) -> tuple[logging.Handler, OSError | None]:
    if path is None:
        return logging.StreamHandler(sys.stderr), None
    try:
        create(path)
        # Whoever moves the file away, to archive it, finds a new one in its place.
        return WatchedFileHandler(path, encoding="utf-8"), None
    except OSError as error:
        return logging.StreamHandler(sys.stderr), error


def create(path: Path) -> None:
    """Make the file, for this user only; one that has grown beyond MAX_BYTES is put aside.

    Raises:
        OSError: it cannot be written there.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        is_long = os.fstat(descriptor).st_size > MAX_BYTES
    finally:
        os.close(descriptor)
    if is_long:
        path.rename(path.with_name(path.name + ".1"))
        create(path)
