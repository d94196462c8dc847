"""Starting a mesh from another process: the parent's side of mesh.owner.

The mesh runs in a process of its own, so that the caller's terminal, event loop and signals stay
the caller's. A tethered owner ends when the caller does, even by SIGKILL; a detached one stays
until `mesh down`.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mesh import logs
from mesh.config import MeshConfig
from mesh.errors import SetupError

_STOP_S = 60.0


@dataclasses.dataclass(slots=True)
class Launched:
    """A mesh that was started; `status` is what it was when it became ready."""

    process: subprocess.Popen[bytes]
    status: dict[str, Any]
    log: Path

    @property
    def endpoint(self) -> str:
        """The supervisor's address."""
        return str(self.status["endpoints"][0])

    def stop(self) -> None:
        """End it, and wait until everything is gone.

        Raises:
            SetupError: it does not end.
        """
        self.process.terminate()
        if self.process.stdin is not None:
            self.process.stdin.close()
        try:
            self.process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            raise SetupError(
                f"the mesh's process {self.process.pid} did not end within {_STOP_S:g} s; see {self.log}"
            ) from None


def launch(
    config: MeshConfig,
    *,
    tethered: bool = True,
    progress: Callable[[str], None] = lambda _: None,
) -> Launched:
    """Start a mesh and wait until it is ready.

    Args:
        config: what it should be.
        tethered: it ends when this process does.
        progress: gets a line for each step.

    Raises:
        SetupError: it could not be started; nothing is left behind.
    """
    log = config.log_path
    try:
        logs.create(log)
    except OSError as error:
        raise SetupError(
            f"the log {log} cannot be written: {error.strerror}; name another with --log-file, or "
            f"another data folder with --data-dir"
        ) from error
    process = subprocess.Popen(
        [sys.executable, "-m", "mesh.owner"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        env=_environment(),
    )
    try:
        answer, begun = _instruct(process, config, tethered, progress)
    except BaseException:
        process.terminate()
        process.wait(_STOP_S)
        raise
    assert process.stdout is not None and process.stderr is not None
    # It says no more from here on; what it prints goes to its log.
    with process.stdout, process.stderr:
        trace = "" if "status" in answer else process.stderr.read().decode(errors="replace").strip()
    if "status" not in answer:
        process.wait(_STOP_S)
        last = trace.splitlines()[-1] if trace else f"it ended with code {process.returncode}"
        if "error" in answer:
            # A mistake that is told before anything was started leaves nothing in the log.
            raise SetupError(f"{answer['error']}; its log: {log}" if begun else answer["error"])
        raise SetupError(f"the mesh's process failed: {last}; see {log}")
    return Launched(process, answer["status"], log)


def _instruct(
    process: subprocess.Popen[bytes],
    config: MeshConfig,
    tethered: bool,
    progress: Callable[[str], None],
) -> tuple[dict[str, Any], bool]:
    """Its last word, and whether it had begun to start things."""
    assert process.stdin is not None and process.stdout is not None
    # Standard input, since the token must not be seen in a list of processes.
    orders = {"config": dataclasses.asdict(config), "tethered": tethered}
    process.stdin.write(json.dumps(orders).encode() + b"\n")
    process.stdin.flush()
    answer: dict[str, Any] = {}
    begun = False
    for line in process.stdout:
        answer = json.loads(line)
        if "progress" not in answer:
            break
        begun = True
        progress(answer["progress"])
    return answer, begun


def _environment() -> dict[str, str]:
    """The application is imported from where the caller stands, as `python -m` would."""
    path = os.pathsep.join(p for p in (os.getcwd(), os.environ.get("PYTHONPATH")) if p)
    return {**os.environ, "PYTHONPATH": path}
