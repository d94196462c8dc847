"""Where contenders meet: the same machine, the same store, the same Ray, in turn.

Machines drift by tens of percents within minutes, and a noisy neighbour hits whoever runs just then. So each
round asks every contender once, in another order, for a short run; what counts are medians over rounds and
ratios within a run.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Self

ROOT = Path(__file__).resolve().parent.parent
WORKER = Path(__file__).resolve().parent / "worker.py"
HANDLERS = min(4, os.cpu_count() or 4)
"""One a core: more of them only make batches smaller."""


class Worker:
    """A contender's process."""

    def __init__(self, python: Path | str, *arguments: str, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [str(python), str(WORKER), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **environment},
            text=True,
        )
        try:
            self.about: dict[str, Any] = self._hear()["about"]
        except BaseException:
            self.close()
            raise

    def ask(self, **order: Any) -> dict[str, Any]:
        """Give an order, wait for its answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return self._hear()

    def _hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):  # Ray prints, too
                return dict(json.loads(line))
        raise SystemExit(f"a contender ended, code {self._process.wait()}: {self._process.args}")

    def close(self) -> None:
        """End it, and what it started."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


@dataclass
class Arena:
    """The contenders of one run.

    Attributes:
        workers: by name; "mesh" is this checkout's.
        results: answers by (contender, question), in the order of the rounds.
    """

    workers: dict[str, Worker]
    dice: random.Random
    results: dict[tuple[str, str], list[dict[str, Any]]] = field(default_factory=dict)

    @classmethod
    @contextmanager
    def open(
        cls,
        contenders: list[str],
        *,
        handlers: int = HANDLERS,
        partitions: int = 256,
        keys: int = 10_000,
        against: str | None = None,
        seed: int = 1,
    ) -> Iterator[Self]:
        """Bring up a mesh, and beside it who else was asked for: "store", "actor", "serve"."""
        with ExitStack() as stack:
            size = ["--handlers", str(handlers), "--partitions", str(partitions)]
            size += ["--keys", str(keys)]

            def start(python: Path | str, *arguments: str, **environment: str) -> Worker:
                worker = Worker(python, *arguments, *size, environment=environment)
                stack.callback(worker.close)
                return worker

            def start_mesh(python: Path | str, name: str) -> tuple[Worker, Path]:
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="raymesh-bench-"))
                say(f"{name}: starting (Ray takes 10 s)")
                unique = f"bench-{os.getpid()}-{'this' if name == 'mesh' else 'other'}"
                return start(python, "mesh", "--name", unique, "--data-dir", folder), Path(folder)

            # The first that is entered is left last: Ray and the store belong to this mesh.
            mesh, folder = start_mesh(sys.executable, "mesh")
            workers = {"mesh": mesh}
            if against:
                python = stack.enter_context(other_revision(against))
                workers[against], _ = start_mesh(python, against)
            nodes = mesh.about["store"]["nodes"]
            primary = next(n for n in nodes if n["role"] == "primary")
            replicas = sum(n["role"] == "replica" for n in nodes)
            secret = next(folder.rglob("secret")).read_text().strip()
            for name in contenders:
                say(f"{name}: starting")
                workers[name] = start(
                    sys.executable,
                    name,
                    *("--store", f"{primary['host']}:{primary['port']}"),
                    *("--replicas", str(replicas), "--ray", mesh.about["ray"]["address"]),
                    BENCH_STORE_PASSWORD=secret,
                )
            yield cls(workers, random.Random(seed))

    def round(self, questions: dict[str, dict[str, Any]], *, keep: bool = True) -> None:
        """Ask each contender each question once, in an order of chance."""
        asked = [(name, question) for question in questions for name in self.workers]
        self.dice.shuffle(asked)
        for name, question in asked:
            answer = self.workers[name].ask(**questions[question])
            if keep:
                self.results.setdefault((name, question), []).append(answer)

    def play(self, questions: dict[str, dict[str, Any]], rounds: int) -> None:
        """One round to warm up, and those that count."""
        say("warming up")
        self.round(questions, keep=False)
        for number in range(rounds):
            say(f"round {number + 1} of {rounds}")
            self.round(questions)

    def rate(self, name: str, question: str) -> float:
        """Calls a second, the median of the rounds."""
        return median(a["calls"] / a["seconds"] for a in self.results[name, question])

    def us(self, name: str, question: str, share: str) -> float:
        """A percentile of the latency in microseconds, the median of the rounds."""
        return median(a["us"][share] for a in self.results[name, question])

    def failed(self, name: str, question: str) -> int:
        """Calls that failed, over all rounds."""
        return sum(a.get("failed", 0) for a in self.results[name, question])


@contextmanager
def other_revision(revision: str) -> Iterator[Path]:
    """The interpreter of an environment of its own, in which that revision is installed as it was locked."""
    with tempfile.TemporaryDirectory(prefix="raymesh-against-") as folder:
        archive = subprocess.run(
            ["git", "-C", str(ROOT), "archive", revision], check=True, capture_output=True
        )
        subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
        say(f"{revision}: installing what it has locked")
        subprocess.run(["make", "--silent", "install"], cwd=folder, check=True, stdout=sys.stderr)
        python = Path(folder) / ".venv/bin/python"
        # This benchmark's own need; the revision may be older than it.
        has = subprocess.run([python, "-c", "import hdrh"], check=False, stderr=subprocess.DEVNULL)
        if has.returncode:
            subprocess.run([python, "-m", "pip", "install", "-q", "hdrhistogram"], check=True)
        yield python


def conclude(figures: dict[str, Any], text: str, file: Path | None) -> None:
    """What a benchmark ends with: the figures for people, and in a file for programs."""
    print(text)
    if file:
        file.write_text(json.dumps(figures, indent=1) + "\n")


def say(line: str) -> None:
    """Progress, apart from the figures."""
    print(line, file=sys.stderr, flush=True)
