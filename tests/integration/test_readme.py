"""The README: its examples run, its commands and links lead somewhere, its errors are all there are."""

from __future__ import annotations

import argparse
import ast
import inspect
import re
import shlex
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from mesh_in_thread import mesh_in_thread

import mesh
from mesh.errors import ProtocolError, SetupError

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text()
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = BLOCK.findall(TEXT)


async def run(code: str, scope: dict[str, Any]) -> None:
    compiled = compile(code, "README.md", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    if compiled.co_flags & inspect.CO_COROUTINE:
        await eval(compiled, scope)
    else:
        exec(compiled, scope)


@pytest.fixture
def page():
    """A module that the blocks share, in which annotations are looked up."""
    module = sys.modules["readme_page"] = ModuleType("readme_page")
    yield vars(module)
    del sys.modules["readme_page"]


async def test_every_block_of_python_runs(page, monkeypatch):
    entity, local, calls = (code for language, code in BLOCKS if language == "python")
    await run(entity, page)
    # In this process, for the mesh of processes that it stands for; tests/cluster has that one.
    kit = mesh.testing.mesh
    monkeypatch.setattr(mesh, "local", lambda *classes, handlers: kit(*classes, handlers=handlers))
    await run(local, page)
    with mesh_in_thread(app=[page["Account"]], replaces=False) as meshed:
        assert "127.0.0.1:7400" in calls
        await run(calls.replace("127.0.0.1:7400", meshed.endpoint), page)
        with meshed.connect() as client:
            assert client.call("Account.read", "alice") == 20


def test_every_command_of_mesh_is_one_that_there_is():
    lines = [line for language, code in BLOCKS if not language for line in code.splitlines()]
    commands = [shlex.split(line)[1:] for line in lines if line.startswith("mesh ")]
    assert len(commands) >= 5
    for name, *arguments in commands:
        parser = argparse.ArgumentParser(exit_on_error=False)
        import_module(f"mesh.cli.{name}").add(parser)
        parser.parse_args(arguments)


def test_every_file_that_it_names_is_there():
    linked = re.findall(r"\]\(([^)#:]+)\)", TEXT)
    assert {"docs/entities.md", "docs/exactly-once.md", "docs/testing.md"} <= set(linked)
    assert [path for path in linked if not (ROOT / path).exists()] == []


def test_its_table_of_errors_has_each_with_what_it_says_of_execution():
    rows = dict(re.findall(r"^\| `(\w+)` \| `(True|False|None)` \|", TEXT, re.MULTILINE))
    kinds = list(mesh.MeshError.__subclasses__())
    for kind in kinds:
        kinds += kind.__subclasses__()
    calls = [
        kind
        for kind in kinds
        if kind.__module__ == "mesh.errors" and kind not in (SetupError, ProtocolError)
    ]
    assert rows == {kind.__name__: str(kind.executed) for kind in calls}
