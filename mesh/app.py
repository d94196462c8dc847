"""A user's application, as its setting names it: modules that are imported, and the entities in them.

What fails inside is his, and is told with the line of his that failed. The configuration only keeps the name:
it is passed to every process of a mesh, and those that run no entity never import one.
"""

from __future__ import annotations

import importlib
import os
import traceback
from collections.abc import Sequence
from typing import Any

from mesh.errors import SetupError


def load_app(app: str) -> list[type]:
    """Import an application's entity classes.

    Args:
        app: "module" takes every entity that the module defines, "module:Class,Class" those named.

    Raises:
        SetupError: it does not import, or has no such class; says what failed inside.
    """
    classes: list[type] = []
    for part in filter(None, app.split(";")):
        module_name, _, names = part.partition(":")
        try:
            module = importlib.import_module(module_name)
        except (Exception, SystemExit) as error:
            raise SetupError(
                f"--app {part}: importing {module_name!r} failed{_place(error)}: "
                f"{type(error).__name__}: {error}{_hint(error, module_name)}"
            ) from error
        found = _pick(module, names.split(",") if names else None)
        if not found:
            raise SetupError(f"--app {part}: {module_name!r} defines no @mesh.entity class")
        classes.extend(found)
    return classes


def _place(error: BaseException) -> str:
    """The line of the application that failed, where one of its lines ran at all."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if f.filename != __file__ and "importlib" not in f.filename]
    return f" in {own[-1].filename}, line {own[-1].lineno}" if own else ""


def _hint(error: BaseException, module_name: str) -> str:
    wanted = module_name.partition(".")[0]
    if isinstance(error, ModuleNotFoundError) and error.name == wanted:
        return f"; it is looked for in {os.getcwd()} and on PYTHONPATH"
    return ""


def _pick(module: Any, names: Sequence[str] | None) -> list[type]:
    if names is None:
        return [
            value
            for value in vars(module).values()
            if isinstance(value, type)
            and "__mesh_entity__" in vars(value)
            and value.__module__ == module.__name__
        ]
    missing = [name for name in names if not hasattr(module, name)]
    if missing:
        raise SetupError(f"--app: {module.__name__!r} has no {', '.join(missing)}")
    return [getattr(module, name) for name in names]
