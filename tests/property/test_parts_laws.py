"""Values of all sizes, assigned in any order, under owners that come and go and forget what they can: what is
read is what plain dicts would hold, and the store has no piece of a state that no state names.
"""

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from unit.parts_rig import Page, Pages, Younger, check_pieces
from unit.rigs import Leader, key_in

from mesh.core.handling import HandlingConfig
from mesh.core.parts import LARGE_BYTES, SMALL_BYTES
from mesh.core.wire import Status
from mesh.store.memory import MemoryServer

DEFAULTS: dict[str, Any] = {"count": 0, "text": "", "notes": [], "colour": "red"}
KNOWN = {Page: ("count", "text", "notes"), Younger: ("count", "colour")}
CONFIG = HandlingConfig(cache_bytes=12_000)

sizes = st.sampled_from([0, 1, SMALL_BYTES - 9, SMALL_BYTES, LARGE_BYTES, LARGE_BYTES + 9, 3000])
texts = st.builds(lambda size, letter: letter * size, sizes, st.sampled_from("ab"))
values = {
    "count": st.integers(0, 2),
    "text": texts,
    "notes": st.lists(texts, max_size=2),
    "colour": st.just("red") | texts,
}
keys = st.integers(0, 3)
changes = st.fixed_dictionaries({}, optional=values)


class Owners(RuleBasedStateMachine):
    """Four keys of one partition. A change counts once it is in the store, whoever is told of it."""

    def __init__(self) -> None:
        super().__init__()
        self.server = MemoryServer()
        self.leader = Leader(self.server)
        self.leader.open_life()
        self.serves: type = Page
        self.owner = Pages(self.server, config=CONFIG).owns_all(self.leader)
        self.states = [dict(DEFAULTS) for _ in range(4)]
        self.page: list[tuple[bytes, bytes]] = []

    def known(self, fields: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in fields.items() if name in KNOWN[self.serves]}

    def call(self, method: str, key: int, *args: Any) -> Any:
        return self.owner.call(f"Page.{method}", key_in(0, nth=key), *args)

    # ------------------------------------------------------------------------- changes

    @rule(key=keys, steps=st.lists(changes, min_size=1, max_size=3))
    def write(self, key, steps):
        """They may go in one batch."""
        for fields in map(self.known, steps):
            self.call("write", key, fields)
            self.states[key] |= fields
        self.owner.flush()

    @rule(key=keys, fields=changes, fails=st.booleans())
    def write_apart(self, key, fields, fails):
        """By an async method."""
        fields = self.known(fields)
        self.call("write_apart", key, fields)
        while self.owner.load():
            pass
        self.owner.carry_out(fails=fails)
        self.owner.flush()
        if not fails:
            self.states[key] |= fields

    @rule(key=keys, fields=changes)
    def fail(self, key, fields):
        caller = self.call("write_and_fail", key, self.known(fields))
        self.owner.flush()
        assert caller.status is Status.ENTITY_ERROR

    @rule(key=keys, fields=changes)
    def look_at_what_is_on_its_way(self, key, fields):
        """Queries see what is acknowledged."""
        fields = self.known(fields)
        self.call("write", key, fields)
        while self.owner.load():
            pass
        batch = self.owner.send()
        assert batch is not None
        self.read(key)
        self.owner.deliver(batch)
        self.states[key] |= fields

    @rule(key=keys, fields=changes)
    def delete_and_write(self, key, fields):
        """In one batch."""
        fields = self.known(fields)
        self.call("~delete", key)
        self.call("write", key, fields)
        self.owner.flush()
        self.states[key] = DEFAULTS | fields

    @rule(key=keys)
    def delete(self, key):
        self.call("~delete", key)
        self.owner.flush()
        self.states[key] = dict(DEFAULTS)

    # ---------------------------------------------------------------------------- reads

    @rule(key=keys)
    def read(self, key):
        caller = self.call("read", key)
        while self.owner.load():
            pass
        assert caller.answer == (Status.OK, self.known(self.states[key]))

    @rule()
    def look_at_a_page(self):
        """It may take its time to get there."""
        self.page = [*self.server.partitions.get(0, {}).items()]

    @rule(most=st.integers(1, 4), backwards=st.booleans())
    def page_comes(self, most, backwards):
        """A few pieces of it, from either end: no piece waits for another."""
        pieces, self.page = self.page[:most], self.page[most:]
        if backwards:
            self.page.reverse()
        tenure = self.owner.core._tenures[0]
        if not tenure.warm:
            assert self.owner.core._reading.adopt_page(tenure, pieces)

    @rule()
    def warm_up(self):
        self.owner.warm_up()

    # --------------------------------------------------------------------------- owners

    @rule(key=keys, fields=changes, arrives=st.booleans(), serves=st.sampled_from([Page, Younger]))
    def owner_dies(self, key, fields, arrives, serves):
        """With a commit that was sent, or not; its heir may know other fields."""
        fields = self.known(fields)
        self.call("write", key, fields)
        while self.owner.load():
            pass
        batch = self.owner.send()
        assert batch is not None
        if arrives:
            self.owner.deliver(batch)
            self.states[key] |= fields
        self.page = []
        self.serves = serves
        heir = Pages(self.server, self.owner.nonce + b"+", CONFIG, serves)
        self.owner = heir.owns_all(self.leader, instead_of=self.owner)

    @invariant()
    def there_is_no_piece_that_no_state_names(self):
        check_pieces(self.server)

    def teardown(self) -> None:
        for key in range(4):
            self.read(key)
        cache = self.owner.core._cache
        self.owner.core._ownership.end()
        assert cache._used_bytes == 0, "what was counted was given back"


TestOwners = Owners.TestCase
