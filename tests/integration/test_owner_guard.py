"""What a killed owner leaves in its session ends with it; nothing else does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mesh import guard

# A session's leader: a child that ignores polite requests, a grandchild, and a child in another session.
LEADER = """
import subprocess, sys
stubborn = "import signal, subprocess, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
stubborn += "p = subprocess.Popen(['sleep', '60']); print(p.pid, flush=True); p.wait()"
child = subprocess.Popen([sys.executable, "-c", stubborn], stdout=subprocess.PIPE)
other = subprocess.Popen(["sleep", "60"], start_new_session=True)
print(child.pid, int(child.stdout.readline()), other.pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def leader() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", LEADER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        yield process
        process.kill()


def guarding(session: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-I", "-S", guard.__file__, str(session)], start_new_session=True
    )


def is_alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def until_gone(*pids: int, within_s: float = 10.0) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline and any(map(is_alive, pids)):
        time.sleep(0.01)
    return not any(map(is_alive, pids))


def test_a_killed_leaders_session_ends_and_no_other(leader):
    child, grandchild, other = map(int, leader.stdout.readline().split())
    with guarding(leader.pid) as process:
        assert all(map(is_alive, (child, grandchild, other)))
        leader.kill()
        leader.wait()
        assert until_gone(child, grandchild)
        assert is_alive(other)
        assert process.wait(10) == 0
    os.kill(other, signal.SIGKILL)
    assert until_gone(other)


def test_a_guard_that_comes_too_late_ends_what_is_left(leader):
    child, grandchild, other = map(int, leader.stdout.readline().split())
    leader.kill()
    leader.wait()
    with guarding(leader.pid) as process:
        assert process.wait(10) == 0
    assert until_gone(child, grandchild, within_s=1.0)
    os.kill(other, signal.SIGKILL)


def test_after_an_end_in_good_order_the_guard_just_ends():
    with subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True
    ) as leader:
        with guarding(leader.pid) as process:
            leader.communicate(b"\n")
            assert process.wait(10) == 0
