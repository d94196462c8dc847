"""The tests that docs/testing.md shows are tests that pass."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_every_test_on_the_page_passes(tmp_path: Path) -> None:
    code = "\n\n".join(BLOCK.findall((ROOT / "docs" / "testing.md").read_text()))
    (tmp_path / "test_page.py").write_text(code)
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "examples"), *sys.path])},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    # anyio runs the async ones once for each of its backends.
    passed = int(done.stdout.split()[-4])
    assert passed >= len(re.findall(r"def test_", code)) > 5
