"""Starting a mesh from another process: the parent's side of mesh.owner.

The mesh runs in a process of its own, so that the caller's terminal, event loop and signals stay
the caller's. A tethered owner ends when the caller does, even by SIGKILL; a detached one stays
until `mesh down`.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mesh import logs
from mesh.config import MeshConfig
from mesh.errors import SetupError

_STOP_S = 60.0
_LAST_LINES = 20

Progress = Callable[[str], None]


@dataclasses.dataclass(slots=True)
class Launched:
    """A mesh that was started; `status` is what it was when it became ready."""

    process: subprocess.Popen[bytes]
    status: dict[str, Any]
    log: Path
    ephemeral: Path | None = None

    @property
    def endpoint(self) -> str:
        """The first supervisor's address."""
        return self.endpoints[0]

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Every supervisor's address."""
        return tuple(map(str, self.status["endpoints"]))

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
        if self.ephemeral is not None:
            shutil.rmtree(self.ephemeral, ignore_errors=True)


class Launching:
    """A mesh that is being started: `begin`, then `wait`; `abort` ends it at any moment between.

    Args:
        config: what it should be.
        tethered: it ends when this process does.
        ephemeral: its data folder is for this run alone and goes with it, the log included.
        progress: gets a line for each step.
    """

    def __init__(
        self,
        config: MeshConfig,
        *,
        tethered: bool = True,
        ephemeral: bool = False,
        progress: Progress = lambda _: None,
    ) -> None:
        self._config = config
        self._tethered = tethered
        self._ephemeral = config.data_folder if ephemeral else None
        self._progress = progress
        self._process: subprocess.Popen[bytes] | None = None
        self._heard = False
        """`wait` listens to it, in whatever thread; it closes the pipes."""

    def begin(self) -> None:
        """Start its process, which imports what it needs until it gets its orders.

        Raises:
            SetupError: its log cannot be written.
        """
        log = self._config.log_path
        try:
            logs.create(log)
        except OSError as error:
            raise SetupError(
                f"the log {log} cannot be written: {error.strerror}; name another with --log-file, or "
                f"another data folder with --data-dir"
            ) from error
        self._process = subprocess.Popen(
            [sys.executable, "-m", "mesh.owner"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            env=_environment(),
        )

    def wait(self, carried: bytes = b"") -> Launched:
        """Give it its orders and wait until it is ready.

        Args:
            carried: entity classes that it could not import (actors.carried).

        Raises:
            SetupError: it could not be started; nothing is left behind.
        """
        process = self._process
        assert process is not None and process.stdout is not None and process.stderr is not None
        self._heard = True
        try:
            answer, begun = self._instruct(process, carried)
        except BaseException:
            self._heard = False
            self.abort()
            raise
        # It says no more from here on; what it prints goes to its log.
        with process.stdout, process.stderr:
            trace = "" if "status" in answer else process.stderr.read().decode(errors="replace")
        if "status" not in answer:
            process.wait(_STOP_S)
            _close(process)
            raise self._failure(answer, begun, trace.strip(), process.returncode)
        if not self._tethered and process.stdin is not None:
            process.stdin.close()
        # It is waited for whether or not anybody keeps what this returns: a mesh must neither end nor
        # become a zombie because of that.
        threading.Thread(
            target=_see_off, args=(process,), name=f"mesh-{process.pid}", daemon=True
        ).start()
        return Launched(process, answer["status"], self._config.log_path, self._ephemeral)

    def abort(self) -> None:
        """Have it take down whatever it has started, and wait until it has."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(_STOP_S)
            if not self._heard:
                _close(self._process)
        self._remove()

    def _failure(
        self, answer: dict[str, Any], begun: bool, trace: str, code: int | None
    ) -> SetupError:
        hint = f"; its log: {self._config.log_path}"
        if self._ephemeral is not None:
            hint = ""
            with contextlib.suppress(FileNotFoundError):  # aborted meanwhile
                words = self._config.log_path.read_text(errors="replace")
                last = "\n".join(words.splitlines()[-_LAST_LINES:])
                hint = f"; its log ended with:\n{last}" if last else ""
        self._remove()
        if "error" in answer:
            # A mistake that is told before anything was started leaves nothing in the log.
            return SetupError(f"{answer['error']}{hint if begun else ''}")
        last = trace.splitlines()[-1] if trace else f"it ended with code {code}"
        return SetupError(f"the mesh's process failed: {last}{hint}")

    def _instruct(
        self, process: subprocess.Popen[bytes], carried: bytes
    ) -> tuple[dict[str, Any], bool]:
        """Its last word, and whether it had begun to start things."""
        assert process.stdin is not None and process.stdout is not None
        orders = {
            "config": dataclasses.asdict(self._config),
            "tethered": self._tethered,
            "ephemeral": self._ephemeral is not None,
            "carried": base64.b64encode(carried).decode(),
        }
        # Standard input, since the token must not be seen in a list of processes.
        with contextlib.suppress(
            BrokenPipeError
        ):  # it has ended, and says why on its standard error
            process.stdin.write(json.dumps(orders).encode() + b"\n")
            process.stdin.flush()
        answer: dict[str, Any] = {}
        begun = False
        for line in process.stdout:
            answer = json.loads(line)
            if "progress" not in answer:
                break
            begun = True
            self._progress(answer["progress"])
        return answer, begun

    def _remove(self) -> None:
        if self._ephemeral is not None:
            shutil.rmtree(self._ephemeral, ignore_errors=True)


def launch(
    config: MeshConfig, *, tethered: bool = True, progress: Progress = lambda _: None
) -> Launched:
    """Start a mesh and wait until it is ready.

    Args:
        config: what it should be.
        tethered: it ends when this process does.
        progress: gets a line for each step.

    Raises:
        SetupError: it could not be started; nothing is left behind.
    """
    launching = Launching(config, tethered=tethered, progress=progress)
    launching.begin()
    return launching.wait()


def _see_off(process: subprocess.Popen[bytes]) -> None:
    process.wait()
    _close(process)


def _close(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):  # what it was told is not read any more
                pipe.close()


def _environment() -> dict[str, str]:
    """An application is imported from where the caller stands, as by `python -m`, and from wherever
    the caller has already imported things from.
    """
    named = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    folders = dict.fromkeys(filter(None, (os.getcwd(), *named, *sys.path)))
    return {**os.environ, "PYTHONPATH": os.pathsep.join(folders)}
