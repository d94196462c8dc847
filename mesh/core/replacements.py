"""Which handler processes are to be started, and when.

The takeover comes first: starting a process costs a second of a core, and the survivors need that core.
Nobody to take over makes the replacement urgent instead. What cannot be started, or dies again and again, is
tried ever later.
"""

from __future__ import annotations

from collections.abc import Set

from mesh.core.members import SupervisionConfig
from mesh.core.signals import Effect, StartHandler


class Replacements:
    """Those of one mesh.

    Args:
        config: which handlers should run, and how patiently they are started.

    Attributes:
        due: when each handler that is missing is to be started.
    """

    def __init__(self, config: SupervisionConfig) -> None:
        self.due: dict[str, float] = {}
        self._config = config
        self._urgent: set[str] = set()
        """Died, and not been started since: they need not wait where nobody else is alive."""
        self._starting: dict[str, float] = {}
        self._delays: dict[str, float] = {}

    def __repr__(self) -> str:
        return f"Replacements(due {sorted(self.due)}, starting {sorted(self._starting)})"

    def schedule(self, id_: str, now: float, *, died: bool = False) -> None:
        """A handler is missing, for having `died` or because it could not be started."""
        if id_ not in self._config.handlers:
            return
        if died:
            self._urgent.add(id_)
        delay = self._delays.get(id_, self._config.restart_after_s)
        self.due[id_] = now + delay
        self._delays[id_] = min(self._config.restart_most_s, delay * 2)

    def had_settled(self, id_: str) -> None:
        """It lived long enough to be started as quickly as a new one."""
        self._delays.pop(id_, None)

    def start_failed(self, id_: str, now: float) -> None:
        """It could not be started; tried again later."""
        self._starting.pop(id_, None)
        self.schedule(id_, now)

    def died_unheard(self, id_: str, at: float, now: float) -> bool:
        """A process of that handler, of which nothing was heard, died at `at`: whether it is the one that
        is being started, dead before it could register.
        """
        due = self._starting.get(id_)
        if due is None or at < due - self._config.start_s:
            return False
        del self._starting[id_]
        self.schedule(id_, now, died=True)
        return True

    @property
    def is_any(self) -> bool:
        """Something is to be started, or is being started."""
        return bool(self.due or self._starting)

    def tick(self, alive: Set[str], now: float) -> list[Effect]:
        """What is to be started now; `alive` are the ids of the handlers that live."""
        effects: list[Effect] = []
        for id_, due in list(self.due.items()):
            # Urgent once: what cannot be started would be tried in a tight loop.
            if due <= now or (id_ in self._urgent and not alive):
                del self.due[id_]
                self._urgent.discard(id_)
                if id_ not in alive:
                    self._starting[id_] = now + self._config.start_s
                    effects.append(StartHandler(id_))
        for id_, due in list(self._starting.items()):
            if id_ in alive:
                del self._starting[id_]
            elif due <= now:
                # It died, or hangs, before it registered: nobody else would ever notice.
                del self._starting[id_]
                self.schedule(id_, now)
        return effects
