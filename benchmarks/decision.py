"""How long the leader's brain takes: one handler lost, and a tenth of them, in a very large mesh.

Pure core, no sockets: the time from the news of a death to the store call that is to be made, its table
encoded. The figures are absolute (nothing else does this job): a loop of a million additions in the same
interpreter stands beside them, so that machines can be told apart.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

from mesh.core.members import SupervisionConfig
from mesh.core.messages import Register
from mesh.core.records import StoreStatus, TakeoverReply
from mesh.core.signals import CallStore, ProcessExited, Registered, StoreReplied
from mesh.core.supervision import Supervision

GOAL_ONE_MS = 100.0
GOAL_TENTH_MS = 1000.0


def leader(handlers: int, partitions: int) -> tuple[Supervision, list[bytes]]:
    """A leader whose mesh is up."""
    ids = tuple(f"h-{i}" for i in range(handlers))
    core = Supervision(SupervisionConfig(ids), partitions=partitions, life=1, token=1)
    nonces = [i.to_bytes(8, "big") for i in range(1, handlers + 1)]
    effects = []
    for id_, nonce in zip(ids, nonces, strict=True):
        register = Register(id_, nonce, "127.0.0.1", 7, 1, "", 1.0, None, None, 0, 0, b"")
        effects += core.step(Registered(register), 0.0)
    (call,) = [e.call for e in effects if isinstance(e, CallStore)]
    answer(core, call.operation, nonces)
    return core, nonces


def answer(core: Supervision, operation: bytes, nonces: list[bytes]) -> None:
    """The store has done it. That everyone is told is left out: it is no decision."""
    done = core._affairs.takeovers.current
    assert done is not None
    done.changed.clear()
    reply = TakeoverReply(
        StoreStatus.OK,
        acknowledged=True,
        versions=dict.fromkeys(nonces, core._affairs.takeovers._numbers),
    )
    core.step(StoreReplied(operation, reply), 0.0)


def measure(handlers: int, partitions: int, repeats: int) -> dict[str, Any]:
    """Milliseconds: deciding for one loss, repeated on the same mesh, then for a tenth at once."""
    core, nonces = leader(handlers, partitions)
    gc.collect()
    gc.freeze()
    ones = []
    for number in range(repeats):
        begun = time.perf_counter()
        effects = core.step(ProcessExited(nonces[number], "", 1.0), 1.0)
        ones.append((time.perf_counter() - begun) * 1000)
        (call,) = [e.call for e in effects if isinstance(e, CallStore)]
        answer(core, call.operation, nonces)
    lost = nonces[repeats : repeats + handlers // 10]
    # While one call is under way the other deaths come in; the next plan has them all.
    effects = core.step(ProcessExited(lost[0], "", 2.0), 2.0)
    (first,) = [e.call for e in effects if isinstance(e, CallStore)]
    for nonce in lost[1:]:
        core.step(ProcessExited(nonce, "", 2.0), 2.0)
    begun = time.perf_counter()
    answer(core, first.operation, nonces)
    tenth = (time.perf_counter() - begun) * 1000
    begun = time.perf_counter()
    total = 0
    for i in range(1_000_000):
        total += i
    return {
        "handlers": handlers,
        "partitions": partitions,
        "one_lost_ms": round(median(ones), 2),
        "one_lost_max_ms": round(max(ones), 2),
        "tenth_lost_ms": round(tenth, 1),
        "million_additions_ms": round((time.perf_counter() - begun) * 1000, 1),
    }


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--handlers", type=int, default=10_000)
    parser.add_argument("--partitions", type=int, default=1_000_000)
    arguments = parser.parse_args()
    figures = measure(arguments.handlers, arguments.partitions, arguments.repeats)
    print(
        f"{figures['handlers']:,} handlers, {figures['partitions']:,} partitions\n\n"
        f"one handler lost:       {figures['one_lost_ms']:8.1f} ms   (goal {GOAL_ONE_MS:g})\n"
        f"a tenth lost:           {figures['tenth_lost_ms']:8.1f} ms   (goal {GOAL_TENTH_MS:g})\n"
        f"a million additions:    {figures['million_additions_ms']:8.1f} ms"
    )
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
