"""What a scenario waits for in the store: called in the very step in which it happens, once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mesh.testing.sim.casting import Casting, Fails, Words
from mesh.testing.sim.checks import Checks
from mesh.testing.sim.machines import Machines

Then = Callable[[], object]


class Occasions:
    """Of one scenario.

    Args:
        checks: hear of everything first.
        machines: the mesh.
        cast: who is who.
    """

    def __init__(self, checks: Checks, machines: Machines, cast: Casting) -> None:
        self._checks = checks
        self._machines = machines
        self._cast = cast
        self._kinds: dict[str, Callable[[Words, Then], None]] = {
            "commit": self._commit,
            "tell": self._tell,
            "revoked": self._revoked,
            "life": self._life,
            "changed": self._changed,
        }

    def __repr__(self) -> str:
        return f"<Occasions of {self._machines!r}>"

    def listen(self, name: str, words: Words, then: Then) -> None:
        """Call it once, when that happens next.

        Raises:
            Fails: it can be waited for, and no more.
        """
        kind = self._kinds.get(name)
        if kind is None:
            raise Fails(f"{name} can be waited for, but nothing can be done as soon as it happens")
        kind(words, then)

    @staticmethod
    def _once(hearing: list[Any], is_it: Callable[..., bool], then: Then) -> None:
        def hear(*told: Any) -> None:
            if is_it(*told):
                hearing.remove(hear)
                then()

        hearing.append(hear)

    def _is_store(self, node: str) -> bool:
        return node == self._machines.stores.primary

    def _commit(self, words: Words, then: Then) -> None:
        nonce = self._cast.nonce(words["who"])

        def is_it(node: str, by: bytes, _tenures: object) -> bool:
            return self._is_store(node) and by == nonce

        self._once(self._checks.on_commit, is_it, then)

    def _tell(self, words: Words, then: Then) -> None:
        nonce, partition = self._cast.nonce(words["who"]), self._cast.partition(words["key"])

        def is_it(node: str, moved: int, _epoch: int, to: bytes) -> bool:
            return self._is_store(node) and moved == partition and to == nonce

        self._once(self._checks.on_grant, is_it, then)

    def _revoked(self, words: Words, then: Then) -> None:
        nonce = self._cast.nonce(words["who"])

        def is_it(node: str, whose: bytes) -> bool:
            return self._is_store(node) and whose == nonce

        self._once(self._checks.on_revoke, is_it, then)

    def _life(self, words: Words, then: Then) -> None:
        name = self._cast.process(words["who"]).name
        self._once(self._checks.on_life, lambda node, _life, _token: node == name, then)

    def _changed(self, _words: Words, then: Then) -> None:
        self._once(self._checks.on_set, lambda node, _life, _version: self._is_store(node), then)
