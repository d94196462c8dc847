"""The log of a mesh: one line an event, whatever the message brings along, and no secret in it."""

from __future__ import annotations

import logging
import re
import stat
import sys

import pytest

from mesh import logs
from mesh.logs import LineFormatter

SECRET = "open-sesame"


def record(message: str, *args: object, name: str = "mesh.node", level: int = logging.INFO):
    return logging.LogRecord(name, level, "f.py", 1, message, args, None)


@pytest.fixture
def root():
    """The root logger, left as it was found."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    others = {name: logging.getLogger(name).level for name in logs._TALKATIVE}
    yield root
    for handler in [h for h in root.handlers if h not in handlers]:
        root.removeHandler(handler)
        handler.close()
    root.setLevel(level)
    for name, its in others.items():
        logging.getLogger(name).setLevel(its)


def test_a_line_tells_when_who_how_grave_and_what():
    line = LineFormatter("handler h-0").format(record("lost %s", "it", level=logging.WARNING))
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}[+-]\d{4}  handler h-0     WARNING  lost it", line
    )


def test_others_than_the_mesh_are_named():
    formatter = LineFormatter("owner")
    assert formatter.format(record("words", name="bank.ledger")).endswith("  bank.ledger: words")
    assert formatter.format(record("words", name="meshed")).endswith("  meshed: words")
    assert formatter.format(record("words", name="actors")).endswith("  words")


def test_a_message_cannot_begin_a_line_of_its_own():
    forged = "x\r\n2026-01-01 00:00:00.000+0000  owner           INFO     all is well\n"
    assert "\n" not in LineFormatter("owner").format(record("%s", forged))


def test_a_traceback_follows_its_line_indented():
    failed = record("it failed")
    try:
        raise ValueError("a\nb")
    except ValueError:
        failed.exc_info = sys.exc_info()
    first, *rest = LineFormatter("owner").format(failed).splitlines()
    assert first.endswith("it failed")
    assert rest[-1] == "    b"
    assert all(line.startswith("    ") for line in rest)


def test_a_secret_is_written_nowhere_not_even_out_of_a_traceback():
    failed = record("at %s", f"redis://:{SECRET}-and-more@db")
    try:
        raise ValueError(f"cannot use {SECRET}")
    except ValueError:
        failed.exc_info = sys.exc_info()
    text = LineFormatter("owner", (SECRET, f"{SECRET}-and-more", "")).format(failed)
    assert SECRET not in text
    assert "at redis://:***@db" in text
    assert "ValueError: cannot use ***" in text


def test_a_process_logs_into_the_file_from_its_level_on(root, tmp_path):
    path = tmp_path / "deep" / "mesh.log"
    logs.set_up("owner", level="warning", path=path, secrets=(SECRET,))
    logging.getLogger("mesh.node").info("not this")
    logging.getLogger("mesh.node").warning("this, %s", SECRET)
    logging.getLogger("ray").info("nor this")
    [line] = path.read_text().splitlines()
    assert line.endswith("this, ***")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_two_processes_append_to_one_file(root, tmp_path):
    path = tmp_path / "mesh.log"
    for who in ("owner", "warden w-0", "owner"):
        logs.set_up(who, level="info", path=path)
        logging.getLogger("mesh").info("hello")
    assert [line.split("  ")[1].strip() for line in path.read_text().splitlines()] == [
        "owner",
        "warden w-0",
        "owner",
    ]
    assert sum(isinstance(h.formatter, LineFormatter) for h in root.handlers) == 1


def test_debug_leaves_talkative_libraries_quiet(root, tmp_path):
    logs.set_up("owner", level="debug", path=tmp_path / "l")
    assert logging.getLogger("mesh").isEnabledFor(logging.DEBUG)
    assert not logging.getLogger("asyncio").isEnabledFor(logging.INFO)


def test_a_file_that_cannot_be_written_is_told_on_standard_error(root, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    logs.set_up("owner", level="info", path=tmp_path / "file" / "mesh.log")
    logging.getLogger("mesh").info("hello")
    told, hello = capsys.readouterr().err.splitlines()
    assert f"no log in {tmp_path}/file/mesh.log" in told
    assert hello.endswith("hello")


def test_a_log_that_has_grown_long_is_put_aside_at_a_start(tmp_path, monkeypatch):
    monkeypatch.setattr(logs, "MAX_BYTES", 3)
    path = tmp_path / "mesh.log"
    for text in ("old!", "new", "!"):
        logs.create(path)
        with path.open("a") as file:
            file.write(text)
    assert (tmp_path / "mesh.log.1").read_text() == "old!"
    assert path.read_text() == "new!"


def test_a_log_that_was_moved_away_is_begun_anew(root, tmp_path):
    path = tmp_path / "mesh.log"
    logs.set_up("owner", level="info", path=path)
    logging.getLogger("mesh").info("one")
    path.rename(tmp_path / "elsewhere")
    logging.getLogger("mesh").info("two")
    assert path.read_text().endswith("two\n")
