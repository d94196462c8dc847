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
from collections.abc import Iterable
from functools import partial

from mesh.store.resp import pack
from mesh.testing.sim.store.sentinel_client import SentinelClient
from mesh.testing.sim.store.sentinel_link import Outgoing
from mesh.testing.sim.store.sentinel_view import (
    ASK_S,
    CONVERT_S,
    HELLO_S,
    INFO_IN_FAILOVER_S,
    INFO_S,
    MOST_DESYNC_S,
    MOST_ELECTION_S,
    PING_S,
    Address,
    Failover,
    Instance,
    SentinelConfig,
    chosen_replica,
    elected,
)

CHANNEL = b"__sentinel__:hello"
_TICK_S = 0.1
_TILT_TRIGGER_S = 2.0


class Watched:
    """An instance with the connections to it."""

    __slots__ = ("channel", "commands", "hello_at", "info_asked_at", "ping_sent_at", "view")

    def __init__(self, view: Instance, commands: Outgoing, channel: Outgoing | None) -> None:
        self.view = view
        self.commands = commands
        self.channel = channel
        self.ping_sent_at = self.info_asked_at = self.hello_at = -1e9

    def end(self) -> None:
        """Watch no more."""
        self.commands.end()
        if self.channel is not None:
            self.channel.end()


class SentinelNode:
    """One start of a Sentinel, watching one store.

    Args:
        config: what it knows; changed as it learns.
        dice: for delays that keep Sentinels from doing all the same at once.
    """

    def __init__(self, config: SentinelConfig, dice: random.Random) -> None:
        self.config = config
        self.host, self.port = "", 0
        self.failover: Failover | None = None
        self.failover_started_at = -1e9
        self.tilt_since: float | None = None
        self.ended = False
        self._dice = dice
        self._loop = asyncio.get_running_loop()
        self._listener: asyncio.Server | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._clients: set[SentinelClient] = set()
        self._ticked_at = 0.0

    def __repr__(self) -> str:
        host, port = self.config.primary
        return f"<SentinelNode {self.host}:{self.port} of {host}:{port}, epoch {self.config.current_epoch}>"

    async def start(self, host: str, port: int) -> None:
        """Listen (on any port, for 0) and begin to watch."""
        loop = self._loop
        self._listener = await loop.create_server(lambda: SentinelClient(self), host, port)
        self.host, self.port = host, port or self._listener.sockets[0].getsockname()[1]
        self._watch_store()
        self.sentinels = {
            address: self._watch(address, is_node=False) for address in self.config.others
        }
        for address, watched in self.sentinels.items():
            watched.view.id = self.config.others[address]
        self._ticked_at = self.now
        self._tick()

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

    @property
    def now(self) -> float:
        return self._loop.time()

    @property
    def watched(self) -> Iterable[Watched]:
        return (self.primary, *self.replicas.values(), *self.sentinels.values())

    def views(self, kind: str) -> list[Instance]:
        """What it knows of the "primary", the "replicas", or the "sentinels"."""
        if kind == "primary":
            return [self.primary.view]
        watched = self.replicas if kind == "replicas" else self.sentinels
        return [one.view for one in watched.values()]

    def met(self, client: SentinelClient) -> None:
        self._clients.add(client)

    def forget(self, client: SentinelClient) -> None:
        self._clients.discard(client)

    # ------------------------------------------------------------------------------------ watching

    def _watch_store(self) -> None:
        """The primary and replicas of the configuration, all of them looked at afresh."""
        config = self.config
        self.primary = self._watch(config.primary, is_node=True)
        self.replicas = {
            address: self._watch(address, is_node=True)
            for address in config.replicas
            if address != config.primary
        }

    def _watch(self, address: Address, *, is_node: bool) -> Watched:
        now, password = self.now, self.config.password
        view = Instance(address, now, now, now)
        commands = Outgoing(
            self._loop, address, password=password, on_connected=lambda: self._ping(watched)
        )
        channel = None
        if is_node:
            channel = Outgoing(
                self._loop,
                address,
                password=password,
                greeting=pack("SUBSCRIBE", CHANNEL),
                on_message=self._heard,
            )
        watched = Watched(view, commands, channel)
        return watched

    def _tick(self) -> None:
        now = self.now
        if not 0 <= now - self._ticked_at <= _TILT_TRIGGER_S:
            self.tilt_since = now
        self._ticked_at = now
        if self.tilt_since is not None and now - self.tilt_since > self.config.tilt_s:
            self.tilt_since = None
        for watched in list(self.watched):
            self._keep_in_touch(watched, now)
        if self.tilt_since is None:
            self._judge(now)
        self._timer = self._loop.call_later(_TICK_S * (0.9 + 0.2 * self._dice.random()), self._tick)

    def _keep_in_touch(self, watched: Watched, now: float) -> None:
        view, commands = watched.view, watched.commands
        view.connected = commands.connected
        if commands.connect(PING_S) and view.pinged_at is None:
            view.pinged_at = now  # the silence counts from here, whether it connects or not
        if watched.channel is not None:
            watched.channel.connect(PING_S)
        if not commands.connected:
            return
        is_node = watched.channel is not None
        if is_node and now - watched.info_asked_at >= self._info_period_s(watched):
            watched.info_asked_at = now
            commands.send(pack("INFO"), partial(self._informed, watched))
        period_s = min(self.config.down_after_s, PING_S)
        if now - view.answered_at > period_s and now - watched.ping_sent_at > period_s / 2:
            self._ping(watched)
        if is_node and now - watched.hello_at >= HELLO_S:
            watched.hello_at = now
            commands.send(pack("PUBLISH", CHANNEL, self._hello()))
        most_s = self.config.down_after_s / 2
        owed_s = now - view.pinged_at if view.pinged_at is not None else 0.0
        long_known = now - view.known_since > 15 * PING_S
        if long_known and owed_s > most_s and now - view.answered_at > most_s:
            commands.drop()  # a half-open connection would answer nothing for ever

    def _ping(self, watched: Watched) -> None:
        view = watched.view
        watched.ping_sent_at = self.now
        if view.pinged_at is None:
            view.pinged_at = self.now
        watched.commands.send(pack("PING"), partial(self._answered, view))

    def _info_period_s(self, watched: Watched) -> float:
        view = watched.view
        if view.info_at is None and watched.info_asked_at < self.now - INFO_IN_FAILOVER_S:
            return 0.0
        urgent = self.failover is not None or self.is_objectively_down(self.now)
        if watched is not self.primary and (urgent or not view.link_up):
            return INFO_IN_FAILOVER_S
        return INFO_S

    def _answered(self, view: Instance, reply: object) -> None:
        view.answered_at = self.now
        if reply == b"PONG" or str(reply).startswith(("LOADING", "MASTERDOWN")):
            view.available_at = self.now
            view.pinged_at = None

    def _informed(self, watched: Watched, reply: object) -> None:
        view = watched.view
        if not isinstance(reply, bytes):
            return
        view.read_info(reply.decode(errors="replace"), self.now)
        if watched is self.primary:
            for line in reply.decode(errors="replace").splitlines():
                if line.startswith("slave") and "ip=" in line:
                    self._met_replica(line)
        failover = self.failover
        promoting = failover is not None and failover.state == "wait_promotion"
        if failover and promoting and failover.promoted is view and view.role == "master":
            self.config.config_epoch = failover.epoch
            failover.enter("reconf_slaves", self.now)
            for other in self.watched:
                other.hello_at = -1e9  # tell everybody at once

    def _met_replica(self, line: str) -> None:
        said = dict(part.split("=", 1) for part in line.split(":", 1)[1].split(",") if "=" in part)
        address = (said["ip"], int(said["port"]))
        if address not in self.replicas and address != self.config.primary:
            self.replicas[address] = self._watch(address, is_node=True)
            self.config.replicas.append(address)

    # -------------------------------------------------------------------------------------- judging

    def is_objectively_down(self, now: float) -> bool:
        """Whether a quorum holds the primary for down."""
        if not self.primary.view.is_down:
            return False
        count = 1
        for watched in self.sentinels.values():
            said_at = watched.view.says_down_at
            count += said_at is not None and now - said_at <= 5 * ASK_S
        return count >= self.config.quorum

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

    # ------------------------------------------------------------------------------------ the channel

    def _hello(self) -> bytes:
        config = self.config
        primary, failover = config.primary, self.failover
        if failover is not None and failover.state == "reconf_slaves" and failover.promoted:
            primary = failover.promoted.address
        fields = (
            *(self.host, self.port, config.id, config.current_epoch),
            *(config.name, *primary, config.config_epoch),
        )
        return ",".join(map(str, fields)).encode()

    def _heard(self, message: object) -> None:
        match message:
            case [b"message", _, bytes(text)]:
                parts = text.decode(errors="replace").split(",")
            case _:
                return
        host, port, id, epoch, name, primary_host, primary_port, config_epoch = parts
        config = self.config
        if id == config.id or name != config.name:
            return
        address = (host, int(port))
        if address not in self.sentinels:
            self._met_sentinel(address, id)
        config.current_epoch = max(config.current_epoch, int(epoch))
        if int(config_epoch) > config.config_epoch:
            config.config_epoch = int(config_epoch)
            primary = (primary_host, int(primary_port))
            if primary != config.primary:
                self._switch(primary)

    def _met_sentinel(self, address: Address, id: str) -> None:
        for known, watched in list(self.sentinels.items()):
            if watched.view.id == id:  # it has moved
                watched.end()
                del self.sentinels[known], self.config.others[known]
        watched = self.sentinels[address] = self._watch(address, is_node=False)
        watched.view.id = self.config.others[address] = id


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
