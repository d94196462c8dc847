"""The examples of the documentation run as they stand there."""

import ast
import inspect
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

DOCS = Path(__file__).parents[2] / "docs"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture
def page():
    """A module that the blocks of one page share; annotations are looked up in it."""
    module = sys.modules["docs_page"] = ModuleType("docs_page")
    yield vars(module)
    del sys.modules["docs_page"]


@pytest.mark.parametrize("name", ["entities.md", "exactly-once.md"])
async def test_every_block_of_python_on_the_page_runs(page, name):
    text = (DOCS / name).read_text()
    blocks = BLOCK.findall(text)
    assert len(blocks) > 5
    at = 0
    for block in blocks:
        at = text.index(block, at)
        line = text.count("\n", 0, at)
        tree = ast.increment_lineno(ast.parse(block), line)
        code = compile(tree, name, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        if code.co_flags & inspect.CO_COROUTINE:
            await eval(code, page)
        else:
            exec(code, page)


def test_the_simulation_page_runs(page):
    """Apart from the others: a simulation has a loop of its own."""
    blocks = BLOCK.findall((DOCS / "simulation.md").read_text())
    assert len(blocks) == 2
    for block in blocks:
        exec(compile(block, "simulation.md", "exec"), page)
