"""The blocking client: what threads, callbacks, signals and the interpreter's exit meet."""

from __future__ import annotations

import concurrent.futures
import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import traceback
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import Any

import pytest
from mesh_in_thread import mesh_in_thread

import mesh
from mesh.client.stats import ClientStats
from mesh.errors import (
    AuthenticationError,
    BadRequest,
    DeadlineExceeded,
    EntityError,
    OutcomeUnknown,
    Unavailable,
)
from mesh.net.listener import free_port


@mesh.entity
class Account:
    balance: int = 0

    @mesh.command
    def deposit(self, amount: int) -> int:
        if amount < 0:
            raise ValueError("amount must be positive")
        self.balance += amount
        return self.balance


@pytest.fixture
def meshed():
    with mesh_in_thread(app=[Account], replaces=False) as running:
        yield running


@pytest.fixture
def client(meshed):
    with meshed.connect() as client:
        yield client


def client_threads() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name.startswith("mesh-client")]


def wait_for(condition: Any, within_s: float = 10.0) -> None:
    waiting = threading.Event()
    for _ in range(int(within_s / 0.005)):
        if condition():
            return
        waiting.wait(0.005)
    raise AssertionError("it did not come true in time")


def test_a_method_is_called_by_reference_by_name_through_its_entity_and_as_a_future(client):
    assert client.call(Account.deposit, "alice", 5) == 5
    assert client.call("Account.deposit", b"alice", amount=5) == 10
    alice = client.entity(Account, "alice")
    assert alice.deposit(1) == 11
    assert alice.with_options(timeout=1.0).deposit(1) == 12
    assert client.submit(Account.deposit, "alice", 3).result() == 15


def test_threads_share_a_client_and_each_gets_its_own_reply(client):
    def work(_: int) -> list[int]:
        return [client.call("KV.incr", "shared") for _ in range(50)]

    with ThreadPoolExecutor(8) as pool:
        replies = [number for part in pool.map(work, range(8)) for number in part]
    assert sorted(replies) == list(range(1, 401))
    assert client.stats() == ClientStats(400, 400, 0, 0, 0, 0, 0)


def test_errors_are_those_of_the_async_client_and_start_at_the_callers_line(client):
    with pytest.raises(EntityError, match="amount must be positive") as caught:
        client.call(Account.deposit, "alice", -1)
    assert caught.value.executed is True
    frames = traceback.extract_tb(caught.value.__traceback__)
    assert len(frames) <= 4
    files = {os.path.basename(frame.filename) for frame in frames[1:]}
    assert files == {"calls_blocking.py", "sync.py"}
    with pytest.raises(BadRequest, match="missing a required argument"):
        client.submit(mesh.KV.put, "k")
    assert client.stats() == ClientStats(1, 0, 1, 0, 0, 0, 0)


def test_what_a_caller_changes_after_submit_is_not_sent(meshed, client):
    items = [1, 2]
    future = client.submit("KV.put", "k", items)
    items.append(3)
    future.result()
    assert client.call("KV.get", "k") == [1, 2]


def test_a_cancelled_future_ends_its_call_and_is_counted_as_cancelled(meshed, client):
    key = meshed.key_of("h-0")
    with meshed.replicas_silent():
        future = client.submit("KV.incr", key)
        meshed.until_pending()
        assert future.cancel()
        done, _ = concurrent.futures.wait([future], timeout=5)
        assert done == {future}
        with pytest.raises(CancelledError):
            future.result()
        assert client.stats() == ClientStats(1, 0, 0, 0, 0, 1, 0)
    assert client.call("KV.incr", key) == 2
    assert client.stats() == ClientStats(2, 1, 0, 0, 0, 1, 0)


def test_a_future_that_is_cancelled_before_its_call_began_sends_nothing(client):
    cancelled: list[Future[Any]] = []

    def in_the_clients_thread(_: Future[Any]) -> None:
        cancelled.append(client.submit("KV.incr", "k"))
        assert cancelled[0].cancel()

    first = client.submit("KV.get", "k")
    first.add_done_callback(in_the_clients_thread)
    wait_for(lambda: cancelled)
    assert concurrent.futures.wait(cancelled, timeout=5).not_done == set()
    assert client.call("KV.get", "k") is None
    assert client.stats() == ClientStats(3, 2, 0, 0, 0, 1, 0)


def test_a_reply_that_comes_after_its_future_was_cancelled_is_counted_once(client):
    for number in range(200):
        client.submit("KV.put", "k", number).cancel()
    assert client.call("KV.get", "other") is None
    stats = client.stats()
    assert (stats.started, stats.ok + stats.cancelled, stats.running) == (201, 201, 0)


def test_a_call_that_is_cancelled_as_its_reply_arrives_is_counted_once(meshed, client):
    key = meshed.key_of("h-0")
    with meshed.replicas_silent():
        first, second = client.submit("KV.incr", key), client.submit("KV.incr", key)
        first.add_done_callback(lambda _: second.cancel())  # one batch: both replies come together
        meshed.until_pending(2)
    assert first.result() == 1
    assert concurrent.futures.wait([second], timeout=5).not_done == set()
    assert second.cancelled()
    assert client.stats() == ClientStats(2, 1, 0, 0, 0, 1, 0)


def test_a_callback_may_submit_and_is_refused_what_would_wait_for_ever(client):
    refused: list[BaseException] = []
    submitted: list[Future[Any]] = []

    def callback(_: Future[Any]) -> None:
        submitted.append(client.submit("KV.incr", "k"))
        for wait in (
            lambda: client.call("KV.incr", "k"),
            client.close,
            submitted[0].result,
            submitted[0].exception,
        ):
            try:
                wait()
            except BadRequest as error:
                refused.append(error)
        client.stats()

    client.submit("KV.incr", "k").add_done_callback(callback)
    wait_for(lambda: len(refused) == 4)
    assert all("would wait for ever" in str(error) for error in refused)
    assert submitted[0].result() == 2


def test_close_ends_every_call_once_with_what_is_known_of_it(meshed):
    client = meshed.connect()
    on_h0, on_h1 = meshed.key_of("h-0"), meshed.key_of("h-1")
    ends: list[tuple[str, type, bool | None, str]] = []

    def call(name: str, key: str) -> None:
        try:
            client.call("KV.incr", key)
        except mesh.MeshError as error:
            ends.append((name, type(error), error.executed, str(error)))

    with meshed.replicas_silent():
        sent = threading.Thread(target=call, args=("sent", on_h0))
        sent.start()
        meshed.until_pending()
        meshed.vanish("h-1")
        wait_for(lambda: "1 handlers" in repr(client))
        parked = threading.Thread(target=call, args=("parked", on_h1))
        parked.start()
        wait_for(lambda: client.stats().running == 2)
        client.close()
        sent.join()
        parked.join()
    assert sorted(ends) == [
        ("parked", Unavailable, False, "the client was closed"),
        ("sent", OutcomeUnknown, None, "the client was closed"),
    ]
    assert client.stats() == ClientStats(2, 0, 0, 1, 1, 0, 0)
    assert client_threads() == []


def test_after_close_every_use_says_so_and_close_may_be_repeated(meshed):
    with meshed.connect() as client:
        wait_for(lambda: repr(client) == f"<Client {meshed.endpoint}, 2 handlers connected>")
    assert repr(client) == f"<Client {meshed.endpoint}, closed>"
    with pytest.raises(Unavailable, match="this client is closed; connect anew"):
        client.call("KV.get", "k")
    with pytest.raises(Unavailable, match="this client is closed; connect anew"):
        client.submit("KV.get", "k")
    client.close()


def test_calls_that_race_with_close_all_end(meshed):
    client = meshed.connect()
    futures: list[Future[Any]] = []
    began = threading.Event()

    def work() -> None:
        while True:
            try:
                futures.append(client.submit("KV.incr", "k"))
            except Unavailable:
                return
            began.set()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    began.wait()
    client.close()
    for thread in threads:
        thread.join()
    assert all(future.done() for future in futures)
    stats = client.stats()
    assert stats.started == len(futures)
    assert stats.started == stats.ok + stats.not_executed + stats.unknown


def test_an_interrupted_caller_leaves_the_client_usable(meshed, client):
    key = meshed.key_of("h-0")

    def interrupt() -> None:
        meshed.until_pending()
        os.kill(os.getpid(), signal.SIGINT)

    with meshed.replicas_silent():
        interrupting = threading.Thread(target=interrupt)
        interrupting.start()
        with pytest.raises(KeyboardInterrupt):
            client.call("KV.incr", key)
        interrupting.join()
        assert client.stats() == ClientStats(1, 0, 0, 0, 0, 1, 0)
    assert client.call("KV.incr", key) == 2


def test_a_signal_handler_may_call_while_its_thread_submits(meshed, client):
    def handle(*_: object) -> None:
        client.call("KV.incr", "signals")

    before = signal.signal(signal.SIGUSR1, handle)
    try:
        with client._lock:  # as submit holds it
            signal.raise_signal(signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert client.call("KV.get", "signals") == 1


def test_it_waits_no_longer_than_its_timeout(meshed, client):
    key = meshed.key_of("h-0")
    wait_for(lambda: "2 handlers" in repr(client))  # or "1" might be the one that is about to go
    meshed.vanish("h-0")
    wait_for(lambda: "1 handlers" in repr(client))
    with pytest.raises(DeadlineExceeded, match=r"not executed within 0\.1 s"):
        client.call("KV.incr", key, timeout=0.1)


def test_it_connects_again_when_its_connections_break(meshed, client):
    assert client.call("KV.incr", "k") == 1
    assert meshed.break_connections("h-0") + meshed.break_connections("h-1") == 2
    assert client.call("KV.incr", "k") == 2
    wait_for(lambda: "2 handlers connected" in repr(client))


def test_a_failed_connect_raises_and_leaves_no_thread():
    dead = f"127.0.0.1:{free_port()}"
    with pytest.raises(Unavailable, match=f"no table from {dead} within 0.2 s: cannot connect"):
        mesh.Client(dead, timeout=0.2)
    with mesh_in_thread(1, token="secret") as meshed:
        with pytest.raises(AuthenticationError, match="wrong token"):
            meshed.connect(token="wrong")
        with meshed.connect(token="secret") as client:
            assert client.call("KV.incr", "k") == 1
    with pytest.raises(BadRequest, match="host:port"):
        mesh.Client("localhost")
    assert client_threads() == []


def test_a_client_that_nobody_has_any_more_is_closed_and_warned_of(meshed):
    meshed.connect().call("KV.incr", "k")
    with pytest.warns(ResourceWarning, match=r"unclosed <AsyncClient .* of a mesh.Client"):
        gc.collect()
    wait_for(lambda: client_threads() == [])


def test_a_future_keeps_its_client(meshed):
    assert meshed.connect().submit("KV.incr", "k").result() == 1
    with pytest.warns(ResourceWarning, match="unclosed"):
        gc.collect()
    wait_for(lambda: client_threads() == [])


def test_at_exit_the_thread_ends_and_those_who_wait_are_left_waiting(meshed):
    client = meshed.connect()
    submitted: list[Future[Any]] = []
    with meshed.replicas_silent():
        submitted.append(client.submit("KV.incr", meshed.key_of("h-0")))
        meshed.until_pending()
        client.leave()
    assert client_threads() == []
    with pytest.raises(Unavailable, match="this client is closed"):
        client.submit("KV.incr", "k")
    # A daemon thread that goes on calling ends with the process, not with a traceback before.
    thread = threading.Thread(target=lambda: submitted.append(client.submit("KV.incr", "k")))
    thread.start()
    thread.join()
    assert [future.done() for future in submitted] == [False, False]


EXITS = {
    "at rest": "",
    "with a call on its way": "client.submit('KV.get', 'k')",
    "with a daemon thread that calls": """
        def work():
            while True:
                client.call("KV.incr", "k")
        threading.Thread(target=work, daemon=True).start()
        while client.stats().ok < 10:
            pass
    """,
    "by an error": "raise SystemExit(0)",
    "with a call at exit": "atexit.register(client.call, 'KV.incr', 'k')",
    "held by a cycle": "client.me = client",
}


@pytest.mark.parametrize("how", EXITS)
def test_an_interpreter_with_an_unclosed_client_exits_quietly(meshed, how):
    threads = 2 if "daemon" in how else 1
    script = f"""
import atexit, sys, threading
# Called last: by then our thread has ended.
atexit.register(lambda: sys.stderr.write("still there" if threading.active_count() > {threads} else ""))
import mesh
client = mesh.Client({meshed.endpoint!r})
client.call("KV.incr", "k")
{textwrap.dedent(EXITS[how])}
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
