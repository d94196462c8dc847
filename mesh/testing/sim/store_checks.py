"""What must hold in the store of a simulated mesh, whichever of its nodes carries something out.

`Checks` has these, too, and is what a world tells things; see there.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any

from mesh.core.epochs import format_epoch
from mesh.testing.sim.call_checks import CallChecks


class StoreChecks(CallChecks):
    """Those of what nodes of the store have carried out.

    Args:
        partitions: of the mesh.

    Attributes:
        on_commit, on_grant, on_revoke, on_life, on_set: called with what `committed`, `granted`, `revoked`,
            `life_opened` and `set_recorded` were told (without the time), in the very step of the store in
            which it happened; for scenarios, and for traces.
        losses: what was said of acknowledged calls that may be gone.
    """

    def __init__(self, partitions: int) -> None:
        super().__init__(partitions)
        self.on_commit: list[Callable[[str, bytes, list[tuple[int, int]]], object]] = []
        self.on_grant: list[Callable[[str, int, int, bytes], object]] = []
        self.on_revoke: list[Callable[[str, bytes], object]] = []
        self.on_life: list[Callable[[str, int, int], object]] = []
        self.on_set: list[Callable[[str, int, int], object]] = []
        self.losses: list[str] = []
        self._writers: dict[tuple[int, int], bytes] = {}
        """(partition, epoch) → the one whose commit was taken."""
        self._holders: dict[tuple[int, int], bytes] = {}
        """(partition, epoch) → to whom it was granted."""
        self._written: dict[tuple[str, int], int] = {}
        self._moved: dict[tuple[str, int], int] = {}
        self._seqs: dict[tuple[str, int, bytes, int], int] = {}
        self._primaries: dict[int, str] = {}
        self._opened: dict[str, tuple[int, int]] = {}
        self._grown: dict[tuple[str, str], Any] = {}
        self._offsets: dict[tuple[Hashable, ...], int] = {}

    def life_opened(self, at: float, node: str, run_id: str, life: int, token: int) -> None:
        """A node took an open_life.

        Args:
            at: virtual time, in seconds.
            node: its name.
            run_id: the node's own.
            life: the new life's number.
            token: of the leader.
        """
        first = self._primaries.setdefault(life, run_id)
        if first != run_id:
            self.violated(
                at,
                "a life has one primary",
                f"life {life} was opened on run {first[:8]}, and now on {node} (run {run_id[:8]})",
            )
        before = self._opened.get(run_id)
        if before is not None and (life <= before[0] or token <= before[1]):
            self.violated(
                at,
                "lives and tokens only grow",
                f"{node} opened life {life} for token {token} after life {before[0]} for token {before[1]}",
            )
        self._opened[run_id] = life, token
        for hear in list(self.on_life):
            hear(node, life, token)

    def led(self, at: float, node: str, run_id: str, life: int, token: int) -> None:
        """A node took a bid for the lead in a life that it had."""
        before = self._opened.get(run_id)
        if before is not None and (life != before[0] or token <= before[1]):
            self.violated(
                at,
                "lives and tokens only grow",
                f"{node} took a bid of token {token} in life {life} after token {before[1]} in {before[0]}",
            )
        self._opened[run_id] = life, token

    def took(self, at: float, node: str, run_id: str, life: int) -> None:
        """A node took a call of that life: so it is the one that the life was opened on, and has not been
        started again since.
        """
        first = self._primaries.get(life)
        if first != run_id:
            opened = "by nobody" if first is None else f"on run {first[:8]}"
            self.violated(
                at,
                "a life has one primary",
                f"{node} (run {run_id[:8]}) took a call of life {life}, which was opened {opened}",
            )

    def forgotten(self, at: float, node: str, operation: bytes, status: str) -> None:
        """A node refused what it had carried out last, when it was asked again."""
        self.violated(
            at,
            "an operation is known again",
            f"{node} has carried {operation.hex()[:8]} out, and now says {status} to it",
        )

    def set_rests_on(self, at: float, node: str, version: int, age_s: float, sure_s: float) -> None:
        """A node recorded an in-sync set for something that Sentinels have said.

        Args:
            at: virtual time, in seconds.
            node: its name.
            version: of the set.
            age_s: how long ago they were asked, by the node's own clock.
            sure_s: for how long they cannot have come to another mind.
        """
        if age_s > sure_s:
            self.violated(
                at,
                "a set rests on what is still so",
                f"{node} recorded set {version} for what Sentinels said {age_s:.3f} s ago; it is sure for "
                f"{sure_s:.3f} s",
            )

    def revoked(self, at: float, node: str, nonce: bytes) -> None:
        """A node took a call that ends a process's grant."""
        del at
        for hear in list(self.on_revoke):
            hear(node, nonce)

    def loss_reported(self, at: float, who: str, said: str) -> None:
        """A leader says that acknowledged calls may be gone."""
        self.losses.append(f"{at:.6f} s  {who}: {said}")

    def granted(self, at: float, node: str, partition: int, epoch: int, nonce: bytes) -> None:
        """A node gave a partition to a process, under that epoch."""
        first = self._holders.setdefault((partition, epoch), nonce)
        if first != nonce:
            self.violated(
                at,
                "an epoch is given once",
                f"epoch {format_epoch(epoch)} of partition {partition} was given to {short(first)}, and on "
                f"{node} to {short(nonce)}",
            )
        before = self._moved.get((node, partition), 0)
        if epoch <= before:
            self.violated(
                at,
                "epochs only grow",
                f"{node} gave partition {partition} to {short(nonce)} under {format_epoch(epoch)}, "
                f"after {format_epoch(before)}",
            )
        self._moved[node, partition] = epoch
        for hear in list(self.on_grant):
            hear(node, partition, epoch, nonce)

    def committed(
        self,
        at: float,
        node: str,
        life: int,
        nonce: bytes,
        lane: int,
        seq: int,
        tenures: list[tuple[int, int]],
    ) -> None:
        """A node applied a batch: not a duplicate, and of its partitions those that it wrote.

        Args:
            at: virtual time, in seconds.
            node: its name.
            life: that the batch named.
            nonce: of the process that wrote.
            lane: of its connections, the one by number.
            seq: of the batch.
            tenures: of each partition that was written its number and the epoch that was named.
        """
        key = (node, life, nonce, lane)
        last = self._seqs.get(key)
        if last is not None and seq != last + 1:
            self.violated(
                at,
                "batches are applied in sequence",
                f"{node} applied batch {seq} of {short(nonce)}, lane {lane}, life {life}, after {last}",
            )
        self._seqs[key] = seq
        for tenure in tenures:
            first = self._writers.setdefault(tenure, nonce)
            partition, epoch = tenure
            if first != nonce:
                self.violated(
                    at,
                    "one writer",
                    f"{node} took a commit of {short(nonce)} for partition {partition} under "
                    f"{format_epoch(epoch)}, under which {short(first)} had written",
                )
            holder = self._holders.get(tenure, nonce)
            if holder != nonce:
                self.violated(
                    at,
                    "one writer",
                    f"{node} took a commit of {short(nonce)} for partition {partition} under "
                    f"{format_epoch(epoch)}, which was given to {short(holder)}",
                )
            newest = max(
                self._written.get((node, partition), 0), self._moved.get((node, partition), 0)
            )
            if epoch < newest:
                self.violated(
                    at,
                    "one writer",
                    f"{node} took a commit of {short(nonce)} for partition {partition} under "
                    f"{format_epoch(epoch)}, after {format_epoch(newest)} was given or written",
                )
            else:
                self._written[node, partition] = epoch
        for hear in list(self.on_commit):
            hear(node, nonce, tenures)

    def set_recorded(self, at: float, node: str, life: int, version: int) -> None:
        """A node recorded an in-sync set."""
        self.grows(at, node, "set version", (life, version))
        for hear in list(self.on_set):
            hear(node, life, version)

    def wrote(self, what: tuple[Hashable, ...], offset: int) -> None:
        """The primary carried that out.

        Args:
            what: any name of it.
            offset: of its replication stream, that and all before it included.
        """
        self._offsets.setdefault(what, offset)

    def relied_on(
        self, at: float, who: str, what: tuple[Hashable, ...], members: Mapping[str, int]
    ) -> None:
        """Somebody tells others of what was carried out: so every member of the in-sync set has to have it.

        Args:
            at: virtual time, in seconds.
            who: tells it.
            what: as `wrote` was told.
            members: of each replica in the set the offset up to which it has the stream.
        """
        offset = self._offsets.get(what)
        behind = [name for name, has in members.items() if offset is None or has < offset]
        if behind:
            words = " ".join(p.hex()[:8] if isinstance(p, bytes) else str(p) for p in what)
            state = "the store has not" if offset is None else f"{', '.join(behind)} have not yet"
            self.violated(
                at, "acknowledged means replicated", f"{who} goes on with {words}, which {state}"
            )

    def grows(self, at: float, who: str, what: str, number: Any) -> None:
        """A number (or tuple) of somebody's that never goes back; it may stay."""
        before = self._grown.get((who, what))
        if before is not None and number < before:
            self.violated(at, f"a {what} never goes back", f"{who} went from {before} to {number}")
        else:
            self._grown[who, what] = number


def short(nonce: bytes) -> str:
    """Of a process's nonce, what traces show."""
    return nonce.hex()[:8]
