"""Mechanisms taken out of the real code, in this process, and put back in afterwards.

A mutant is a few replacements of text: in the source of a function, which is compiled anew and put in the
place of the old one's code, so that everybody who holds the function has the mutant; or in the store's
function library, which each simulated node loads. A text that is not there once is an error: the code has
changed, and the mutant would test nothing.
"""

from __future__ import annotations
import __future__

import inspect
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from types import CodeType, FunctionType
from typing import Any

from mesh.store import library

LUA = "the function library"


class NotThere(AssertionError):
    """What a mutant replaces is not in the code any more."""


@dataclass(frozen=True)
class Edit:
    """One replacement.

    Attributes:
        where: "package.module:Class.method", "package.module:function", or LUA.
        old: a text that is there exactly once.
    """

    where: str
    old: str
    new: str

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Have it, for as long as the block lasts.

        Raises:
            NotThere: the text is not there, or more than once.
        """
        with self._in_library() if self.where == LUA else self._in_function():
            yield

    def _replaced(self, source: str) -> str:
        if (times := source.count(self.old)) != 1:
            raise NotThere(f"{self.where}: {self.old!r} is there {times} times, not once")
        return source.replace(self.old, self.new)

    @contextmanager
    def _in_library(self) -> Iterator[None]:
        before = library.source
        source = self._replaced(before())
        library.source = lambda: source  # type: ignore[assignment]
        try:
            yield
        finally:
            library.source = before

    @contextmanager
    def _in_function(self) -> Iterator[None]:
        function = find(self.where)
        before = function.__code__
        source = _SOURCES.get(before)
        if source is None:
            source = inspect.getsource(function)
        source = self._replaced(source)
        code = _compiled(source, function)
        _SOURCES[code] = source
        function.__code__ = code
        try:
            yield
        finally:
            function.__code__ = before


_SOURCES: dict[CodeType, str] = {}
"""Of code that a mutant has made: another edit of it goes on from there."""


def find(where: str) -> FunctionType:
    """The function of that name.

    Raises:
        NotThere: there is none.
    """
    module, _, path = where.partition(":")
    found: Any = import_module(module)
    for name in path.split("."):
        if name not in vars(found):
            raise NotThere(f"there is no {where}: {found!r} has no {name!r}")
        found = vars(found)[name]
    if isinstance(found, property):
        found = found.fget
    found = inspect.unwrap(getattr(found, "__func__", found))
    assert isinstance(found, FunctionType), f"{where} is {found!r}"
    return found


def _compiled(source: str, function: FunctionType) -> CodeType:
    flags = __future__.annotations.compiler_flag
    if source.startswith(" "):
        source = f"if True:\n{source}"  # a method as it stands in its class
    module = compile(source, f"<mutant of {function.__qualname__}>", "exec", flags, True)
    for code in module.co_consts:
        if isinstance(code, CodeType) and code.co_name == function.__name__:
            if code.co_freevars != function.__code__.co_freevars:
                raise NotThere(f"{function.__qualname__} closes over other variables")
            return code
    raise NotThere(f"the source of {function.__qualname__} does not define it")


@dataclass(frozen=True)
class Mutant:
    """One mechanism taken out, or one together with what else covers for it.

    Attributes:
        edits: how.
        drawn: what plans are to have, where those of every seed hardly ever come to it.
    """

    edits: tuple[Edit, ...]
    drawn: dict[str, Any] = field(default_factory=dict)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Have it, for as long as the block lasts."""
        with ExitStack() as edits:
            for edit in self.edits:
                edits.enter_context(edit.applied())
            yield


def mutant(*edits: tuple[str, str, str], **drawn: Any) -> Mutant:
    return Mutant(tuple(Edit(*edit) for edit in edits), drawn)
