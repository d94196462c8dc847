"""A Sentinel: watches a primary, its replicas and its like, and fails over when most of them agree.

As in the real one: subjectively down after a silence, objectively when a quorum says so; an election by
epochs, one vote each; the replica chosen by priority, offset and run id out of INFO that may be ten seconds
old; REPLICAOF NO ONE, then REPLICAOF to the others; the outcome spreads by messages on a channel of the
data nodes. Nobody asks whether the promoted replica has everything: that is what makes it lossy.

    config = SentinelConfig(id, "default", primary, replicas, {address: id_of_it, ...}, down_after_s=0.5)
    sentinel = SentinelNode(config, dice)
    await sentinel.start(host, 26379)

The configuration is written to as the real one writes its file: a Sentinel that is started again with the
same object remembers its votes. One that was paused for over two seconds does nothing for `tilt_s`.
"""

from __future__ import annotations

import asyncio
import random
from functools import partial

from mesh.store.resp import pack
from mesh.testing.sim.store.sentinel_client import SentinelClient
from mesh.testing.sim.store.sentinel_view import (
    ASK_S,
    CONVERT_S,
    HELLO_S,
    MOST_DESYNC_S,
    MOST_ELECTION_S,
    Address,
    Failover,
    Instance,
    SentinelConfig,
    chosen_replica,
    elected,
)
from mesh.testing.sim.store.sentinel_watch import SentinelWatch, Watched


class SentinelNode(SentinelWatch):
    """One start of a Sentinel, watching one store.

    Args:
        config: what it knows; changed as it learns.
        dice: for delays that keep Sentinels from doing all the same at once.
    """

    def __init__(self, config: SentinelConfig, dice: random.Random) -> None:
        super().__init__(config, dice)
        self.failover_started_at = -1e9
        self._listener: asyncio.Server | None = None
        self._clients: set[SentinelClient] = set()

    def __repr__(self) -> str:
        host, port = self.config.primary
        return f"<SentinelNode {self.host}:{self.port} of {host}:{port}, epoch {self.config.current_epoch}>"

    async def start(self, host: str, port: int) -> None:
        """Listen (on any port, for 0) and begin to watch."""
        loop = self._loop
        self._listener = await loop.create_server(lambda: SentinelClient(self), host, port)
        self.host, self.port = host, port or self._listener.sockets[0].getsockname()[1]
        self._begin_watching()

    async def stop(self) -> None:
        """End it, in order or not: it has nothing to lose."""
        self.kill()
        if self._listener is not None:
            await self._listener.wait_closed()

    def kill(self) -> None:
        """End it at once."""
        self.ended = True
        if self._timer is not None:
            self._timer.cancel()
        if self._listener is not None:
            self._listener.close()
        for watched in self.watched:
            watched.end()
        for client in list(self._clients):
            client.kill()

    def met(self, client: SentinelClient) -> None:
        self._clients.add(client)

    def forget(self, client: SentinelClient) -> None:
        self._clients.discard(client)

    # -------------------------------------------------------------------------------------- judging

    def _judge(self, now: float) -> None:
        for watched in self.watched:
            watched.view.look(now, self.config.down_after_s)
        down = self.is_objectively_down(now)
        timeout_s = self.config.failover_timeout_s
        begun = False
        if down and self.failover is None and now - self.failover_started_at >= 2 * timeout_s:
            self._begin_failover(now)
            begun = True
        if self.failover is not None:
            self._go_on(self.failover, now)
        if self.primary.view.is_down:
            self._ask_others(now, at_once=begun)
        if self.failover is None and not self.primary.view.is_down:
            self._put_right(now)

    def _begin_failover(self, now: float, *, forced: bool = False) -> None:
        config = self.config
        config.current_epoch += 1
        self.failover_started_at = now + self._dice.random() * MOST_DESYNC_S
        self.failover = Failover(config.current_epoch, self.failover_started_at, forced=forced)
        self.failover.enter("wait_start", now)

    def force_failover(self) -> bool:
        """SENTINEL FAILOVER; whether there is a replica fit for it."""
        if self.failover is not None or self._chosen(self.now) is None:
            return False
        self._begin_failover(self.now, forced=True)
        return True

    def _ask_others(self, now: float, *, at_once: bool) -> None:
        host, port = self.config.primary
        candidate = self.config.id if self.failover is not None else "*"
        command = pack(
            *("SENTINEL", "IS-MASTER-DOWN-BY-ADDR", host, port),
            *(self.config.current_epoch, candidate),
        )
        for watched in self.sentinels.values():
            view = watched.view
            if watched.commands.connected and (at_once or now - view.asked_at >= ASK_S):
                view.asked_at = now
                watched.commands.send(command, partial(self._told, view))

    def _told(self, view: Instance, reply: object) -> None:
        match reply:
            case [int(down), bytes(leader), int(epoch)]:
                view.says_down_at = self.now if down else None
                if leader != b"*":
                    view.vote, view.vote_epoch = leader.decode(), epoch

    def vote(self, epoch: int, candidate: str) -> tuple[str, int]:
        """Somebody asks for this Sentinel's vote in an epoch; whom it has, in which."""
        config = self.config
        config.current_epoch = max(config.current_epoch, epoch)
        if config.leader_epoch < epoch and config.current_epoch <= epoch:
            config.leader, config.leader_epoch = candidate, config.current_epoch
            if candidate != config.id:
                self.failover_started_at = self.now + self._dice.random() * MOST_DESYNC_S
        return config.leader, config.leader_epoch

    def _leader(self, epoch: int) -> str:
        config = self.config
        votes = [
            watched.view.vote
            for watched in self.sentinels.values()
            if watched.view.vote and watched.view.vote_epoch == config.current_epoch
        ]
        # Its own vote: for whom most are, else for itself.
        favourite = max(votes, key=votes.count) if votes else config.id
        mine, mine_epoch = self.vote(epoch, favourite)
        if mine and mine_epoch == epoch:
            votes.append(mine)
        return elected(votes, 1 + len(self.sentinels), config.quorum)

    # ------------------------------------------------------------------------------------ failing over

    def _chosen(self, now: float) -> Instance | None:
        return chosen_replica(
            (watched.view for watched in self.replicas.values()),
            now=now,
            primary_down_since=self.primary.view.down_since,
            down_after_s=self.config.down_after_s,
        )

    def _go_on(self, failover: Failover, now: float) -> None:
        timeout_s = self.config.failover_timeout_s
        if failover.state == "wait_start":
            if failover.forced or self._leader(failover.epoch) == self.config.id:
                failover.enter("select_slave", now)
            elif now - failover.started_at > min(MOST_ELECTION_S, timeout_s):
                self.failover = None
                return
        if failover.state == "select_slave":
            failover.promoted = self._chosen(now)
            if failover.promoted is None:
                self.failover = None
                return
            failover.enter("send_slaveof_noone", now)
        if failover.state == "send_slaveof_noone":
            assert failover.promoted is not None
            target = self.replicas[failover.promoted.address]
            if target.commands.connected:
                _reconfigure(target, "NO", "ONE")
                target.info_asked_at = -1e9
                failover.enter("wait_promotion", now)
            elif now - failover.state_since > timeout_s:
                self.failover = None
        elif failover.state == "wait_promotion":
            if now - failover.state_since > timeout_s:
                self.failover = None
        elif failover.state == "reconf_slaves":
            self._reconfigure_others(failover, now)

    def _reconfigure_others(self, failover: Failover, now: float) -> None:
        promoted = failover.promoted
        assert promoted is not None
        others = [w for w in self.replicas.values() if w.view is not promoted]
        done = [w for w in others if w.view.is_down or self._follows(w.view, promoted.address)]
        over = now - failover.state_since > self.config.failover_timeout_s
        under_way = sum(
            now - failover.sent.get(w.view.address, -1e9) < HELLO_S for w in others if w not in done
        )
        for watched in others:
            address = watched.view.address
            if watched in done or (address in failover.sent and not over):
                continue
            if under_way >= self.config.parallel_syncs and not over:
                break
            if watched.commands.connected:
                _reconfigure(watched, *promoted.address)
                failover.sent[address] = now
                under_way += 1
        if over or len(done) == len(others):
            self.failover = None
            self._switch(promoted.address)

    @staticmethod
    def _follows(view: Instance, primary: Address) -> bool:
        return view.role == "slave" and view.primary == primary and view.link_up

    def _switch(self, primary: Address) -> None:
        """Another node is the primary; the former one becomes a replica that is to be told."""
        config = self.config
        nodes = [config.primary, *config.replicas]
        config.replicas = [node for node in dict.fromkeys(nodes) if node != primary]
        config.primary = primary
        for watched in (self.primary, *self.replicas.values()):
            watched.end()
        for watched in self.sentinels.values():
            watched.view.says_down_at = None
        self.failover = None
        self._watch_store()

    def _put_right(self, now: float) -> None:
        """Nodes that think they are a primary, or follow another one, are told; not at once."""
        primary = self.config.primary
        for watched in self.replicas.values():
            view = watched.view
            if view.info_at is None or not watched.commands.connected:
                continue
            wait_s = CONVERT_S if view.role == "master" else self.config.failover_timeout_s
            since = view.role_since if view.role == "master" else view.primary_since
            astray = view.role == "master" or view.primary != primary
            sane = self.primary.view.role == "master" and self.primary.view.info_at is not None
            if astray and sane and view.no_down_for(now, wait_s) and now - since > wait_s:
                _reconfigure(watched, *primary)
                view.role_since = view.primary_since = now


def _reconfigure(watched: Watched, host: str, port: str | int) -> None:
    """REPLICAOF, and every client's connection cut so that it looks for the primary anew; in one step."""
    for command in (
        pack("MULTI"),
        pack("REPLICAOF", host, port),
        pack("CONFIG", "REWRITE"),
        pack("CLIENT", "KILL", "TYPE", "normal"),
        pack("CLIENT", "KILL", "TYPE", "pubsub"),
        pack("EXEC"),
    ):
        watched.commands.send(command)
