"""The client's brain: where each call goes, when it is sent again, and how it ends.

Theory of operation. A call has one id for all its attempts and is in flight on at most one connection.
It is sent again, with the same id, when its connection breaks, when its handler left the table, and when
a handler says that it is not the owner; none of these costs a retry, they only cost time. A call whose
attempts were all refused on unbroken connections is "not executed"; any other without a verdict is "unknown".
A call that was in flight on two handler processes that died goes to no third: it may be what kills them.
For the first of them having been sent it is enough. Any further one has to have said that it took the call up
(Status.TAKEN_UP): where several die at one instant, the others were dead before it reached them.

Pure: `now` is passed in, frames leave through `Ports`.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from mesh.core.call import Call, Result
from mesh.core.impressions import WINDOW_S, Impressions
from mesh.core.messages import Complaints
from mesh.core.routes import Routes
from mesh.core.table import HandlerRow, Owner, Table
from mesh.core.unsettled import Unsettled
from mesh.core.verdicts import broken_off, poison, too_late, verdict
from mesh.core.wire import (
    MAX_DEATHS_SAID,
    MAX_MS,
    Redirect,
    Status,
    pack_request,
)

MAX_DEATHS = 2
_OK: int = Status.OK  # an enum's member takes 80 ns to look up
_ENTITY_ERROR: int = Status.ENTITY_ERROR
_TAKEN_UP: int = Status.TAKEN_UP
DEFAULT_PRIORITY = 128
"""In the middle of 0 to 255, so that there is room on both sides."""
_SLACK = 256
_MAX_BACKOFF_S = 0.05


class Ports(Protocol):
    """What the shell does for the core."""

    def send(self, nonce: bytes, frame: bytes) -> None:
        """Queue a frame on the connection to that handler process."""
        ...

    def connect(self, row: HandlerRow) -> None:
        """Have a connection to that process, soon; repeated calls change nothing."""
        ...

    def disconnect(self, nonce: bytes) -> None:
        """That process is in no table any more."""
        ...


class ClientCore:
    """One client session.

    Args:
        session: its number; drawn anew in each process.
        ports: the shell.
    """

    def __init__(self, session: int, ports: Ports) -> None:
        self.session = session
        self._routes = Routes()
        self._route = self._routes.of
        self._ports = ports
        self._calls: dict[int, Call] = {}
        self._unsettled = Unsettled(self._calls)
        self._impressions = Impressions()
        self._next = 1
        self._up: set[bytes] = set()
        self._in_flight: dict[bytes, dict[int, Call]] = {}
        self._parked: dict[int, Call] = {}
        self._timers: list[tuple[float, int]] = []

    def __repr__(self) -> str:
        return f"ClientCore({len(self._calls)} calls, {len(self._parked)} parked, {self.table!r})"

    # ---------------------------------------------------------------- calls

    def call(
        self,
        partition: int,
        payload: bytes,
        timeout_s: float,
        now: float,
        done: Callable[[Result], None],
        priority: int = DEFAULT_PRIORITY,
        idempotency_key: str | None = None,
    ) -> Call:
        """Begin a call; `done` is called once, when it has ended."""
        counter = self._next
        self._next += 1
        call = Call(
            counter, partition, payload, now, now + timeout_s, done, priority, idempotency_key
        )
        self._calls[counter] = call
        self._unsettled.began(partition, counter)
        if len(self._timers) > 2 * len(self._calls) + _SLACK:
            self._forget_ended()
        heapq.heappush(self._timers, (call.deadline, counter))
        self._dispatch(call, now)
        return call

    def _forget_ended(self) -> None:
        """Drop what is left of ended calls. Done when they are the most of it, so that a call costs the
        same whatever its deadline: at 20,000 calls/s, ten seconds of them would be 200,000 timers.
        """
        calls = self._calls
        self._timers = [timer for timer in self._timers if timer[1] in calls]
        heapq.heapify(self._timers)
        self._unsettled.forget_settled()

    def cancel(self, call: Call) -> None:
        """The caller does not wait any more. What was sent may still be carried out."""
        if not call.settled:
            self._settle(call)

    def on_reply(self, nonce: bytes, counter: int, status: int, payload: bytes, now: float) -> None:
        """A handler answered. Late answers of calls that have ended are ignored."""
        call = self._calls.get(counter)
        if status == _TAKEN_UP:
            # No answer: it is in flight there still, for a call that has ended as well.
            if call is not None and call.conn == nonce:
                call.taken_up = True
            return
        if call is None:
            self._unsettled.answered(nonce, counter)
            return
        if call.conn == nonce:
            self._in_flight[nonce].pop(counter, None)
            call.conn = None
            if call.attempt == 1 and status <= _ENTITY_ERROR:
                failed, span_s = status == _ENTITY_ERROR, now - call.sent
                self._impressions.answered(nonce, call.partition, span_s, failed=failed)
            if now >= self._impressions.due:
                self._complain(now)
        elif status not in (_OK, _ENTITY_ERROR):
            # A refusal by a process that the call has left says nothing of where it is in flight now.
            return
        if status == _OK:
            self._end(call, Result(payload))
        elif status == Status.REDIRECT:
            self._learn(Redirect.decode(payload), call, now)
        elif status in (Status.NOT_READY, Status.MAYBE, Status.EXPIRED):
            # A handler has calls wait only so long, however late they are due: then they are sent anew.
            call.maybe = call.maybe or status == Status.MAYBE
            self._again_later(call, now)
        else:
            known = self._known(call, nonce)
            error = verdict(status, payload, known, maybe=call.maybe)
            self._end(call, Result(b"", error, status))

    def known(self, partition: int, idempotency_key: str | None) -> dict[str, Any]:
        """What every error of a call says: who owns its partition, and its caller's key."""
        owner = self.owner(partition)
        return {
            "partition": partition,
            "handler": owner.handler.id if owner else None,
            "epoch": owner.epoch if owner else None,
            "idempotency_key": idempotency_key,
        }

    def _known(self, call: Call, nonce: bytes | None = None) -> dict[str, Any]:
        """The same, of who answered where somebody did."""
        known = self.known(call.partition, call.idempotency_key)
        if nonce is not None:
            row = self.table.row(nonce) if self.table is not None else None
            known["epoch"] = call.epoch
            known["handler"] = row.id if row else None
        return known

    # --------------------------------------------------------------- routes

    @property
    def table(self) -> Table | None:
        """The newest that has arrived."""
        return self._routes.table

    def on_table(self, table: Table, now: float) -> None:
        """A table arrived; older ones are ignored."""
        if self.table is not None and table.version <= self.table.version:
            return
        parted = self._routes.renew(table)
        for row in table.handlers:
            self._ports.connect(row)
        self._part_from(parted, now)
        self._dispatch_parked(now)

    def on_up(self, nonce: bytes, now: float) -> None:
        """The connection to that process is ready."""
        self._up.add(nonce)
        self._in_flight.setdefault(nonce, {})
        self._dispatch_parked(now)

    def on_down(self, nonce: bytes, now: float) -> None:
        """The connection to that process broke."""
        self._up.discard(nonce)
        self._unsettled.lost(nonce)
        for call in self._in_flight.pop(nonce, {}).values():
            self._impressions.unanswered(nonce, call.partition, now - call.sent)
            call.conn = None
            call.maybe = True
            self._unsettled.in_doubt = True
            if call.taken_up or not call.deaths:
                call.suspects |= {nonce}
            self._dispatch(call, now)

    def owner(self, partition: int) -> Owner | None:
        """Who owns the partition, as far as this client knows."""
        return self._routes.owner(partition)

    def _learn(self, redirect: Redirect, call: Call, now: float) -> None:
        known = self._routes.owner(redirect.partition)
        if known is not None and redirect.epoch <= known.epoch:
            # The sender knows less than we do, or as much: the owner is about to hear of it.
            self._again_later(call, now)
            return
        self._part_from(self._routes.learn(redirect), now)
        self._dispatch(call, now)

    def _part_from(self, nonces: list[bytes], now: float) -> None:
        """No connection is kept to a process that no table and no redirect names any more."""
        for nonce in nonces:
            self._ports.disconnect(nonce)
            self.on_down(nonce, now)

    def _dispatch(self, call: Call, now: float) -> None:
        if call.settled:
            # Ended by what the end of another call brought about.
            return
        try:
            self._send(call, now)
        except Exception as error:  # noqa: BLE001 - whatever it is, the calls behind this one go on
            if not call.settled:
                reason = f"the call could not be sent: {error!r:.200}"
                self._end(call, Result(error=broken_off(call, reason, self._known(call))))

    def _send(self, call: Call, now: float) -> None:
        partition = call.partition
        route = self._route(partition)
        if route is None:
            self._parked[call.counter] = call
            return
        row, epoch = route
        nonce = row.nonce
        if nonce not in self._up:
            self._ports.connect(row)
            self._parked[call.counter] = call
            return
        age = 0
        if call.attempt:
            age = min(MAX_MS, int((now - call.sent + call.slept) * 1000))
        else:
            call.sent = now
            call.slept = 0.0
        if call.suspects:
            if self._may_be_poison(call, nonce):
                self._end(call, Result(error=poison(call, self._known(call))))
                return
            call.deaths = min(MAX_DEATHS_SAID, len(call.suspects - {nonce}))
            call.taken_up = False
        call.conn = nonce
        call.epoch = epoch
        self._in_flight[nonce][call.counter] = call
        frame = pack_request(
            (
                self.session,
                call.counter,
                self._unsettled.lowest(partition),
                partition,
                epoch,
                min(MAX_MS, max(0, int((call.deadline - now) * 1000))),
                age,
                min(255, call.attempt),
                call.priority,
                call.payload,
                call.deaths,
            )
        )
        self._ports.send(nonce, frame)
        call.attempt += 1

    def _may_be_poison(self, call: Call, nonce: bytes) -> bool:
        suspects = call.suspects
        return len(suspects) >= MAX_DEATHS and nonce not in suspects and self._deaths(call)

    def _dispatch_parked(self, now: float) -> None:
        if self._parked:
            parked, self._parked = self._parked, {}
            for call in parked.values():
                self._dispatch(call, now)

    def _deaths(self, call: Call) -> bool:
        table = self.table
        gone = [n for n in call.suspects if table is None or table.row(n) is None]
        return len(gone) >= MAX_DEATHS

    def _again_later(self, call: Call, now: float) -> None:
        """Not a retry: the route is about to change. Waits a little longer each time."""
        heapq.heappush(self._timers, (now + call.backoff, call.counter))
        call.backoff = min(_MAX_BACKOFF_S, call.backoff * 2)

    # ----------------------------------------------------------------- time

    def next_timer(self) -> float | None:
        """When `on_timer` is due."""
        return self._timers[0][0] if self._timers else None

    def on_timer(self, now: float) -> None:
        """End calls whose time is out; send again those that were told to wait."""
        while self._timers and self._timers[0][0] <= now:
            _, counter = heapq.heappop(self._timers)
            call = self._calls.get(counter)
            if call is None:
                continue
            if call.deadline <= now:
                if call.conn is not None:
                    self._impressions.unanswered(call.conn, call.partition, now - call.sent)
                error = too_late(call, self.owner(call.partition), self._known(call))
                self._end(call, Result(error=error))
            elif call.conn is None and counter not in self._parked:
                self._dispatch(call, now)

    def on_slept(self, seconds: float) -> None:
        """The machine was asleep, which the clock does not count: all calls are that much older."""
        for call in self._calls.values():
            call.slept += seconds

    # ----------------------------------------------------------- complaints

    def _complain(self, now: float) -> None:
        """A window of impressions is over: tell a handler that is well of those that are not."""
        table, impressions = self.table, self._impressions
        if table is None:
            return
        for nonce, calls in self._in_flight.items():
            for call in calls.values():  # in the order in which they were sent
                if now - call.sent < WINDOW_S:
                    break
                if call.attempt == 1:
                    impressions.waits(nonce, now - call.sent)
        for call in self._parked.values():
            if now - call.started >= WINDOW_S and (route := self._route(call.partition)):
                impressions.waits(route[0].nonce, now - call.started)
        bad = impressions.conclude(now, lambda nonce: len(table.partitions_of(nonce)))
        if not bad:
            return
        ill = {complaint.nonce for complaint in bad}
        well = sorted(nonce for nonce in self._up if nonce not in ill)
        if well:
            complaints = Complaints([(*complaint,) for complaint in bad])
            self._ports.send(well[self.session % len(well)], complaints.frame())

    # ------------------------------------------------------------------ end

    def close(self, reason: str) -> None:
        """End every call."""
        for call in list(self._calls.values()):
            self._end(call, Result(error=broken_off(call, reason, self._known(call))))

    @property
    def is_answered(self) -> bool:
        """Every attempt of every call was answered: nothing of this session is under way anywhere."""
        return not self._calls and self._unsettled.is_answered

    def calls(self) -> Iterator[Call]:
        """The calls that have not ended."""
        return iter(self._calls.values())

    def _settle(self, call: Call) -> None:
        call.settled = True
        del self._calls[call.counter]
        self._parked.pop(call.counter, None)
        if call.conn is not None:
            self._in_flight[call.conn].pop(call.counter, None)
            self._unsettled.given_up(call.conn, call.counter)

    def _end(self, call: Call, result: Result) -> None:
        self._settle(call)
        call.done(result)
