"""Deaths, lost messages and a failing store in any order: the mesh stays safe and comes to rest even."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule
from unit.mesh_rig import Mesh

IDS = ("a", "b", "c")


class Schedule(RuleBasedStateMachine):
    """Every rule ends in Mesh.check; teardown heals everything and checks what holds at rest."""

    def __init__(self):
        super().__init__()
        self.mesh = Mesh(*IDS, partitions=7)
        self.unreported = []
        self.extra = 0
        for id_ in IDS:
            self.mesh.start(id_)

    def pick(self, data, processes):
        return data.draw(st.sampled_from(processes), label="process")

    @precondition(lambda self: self.mesh.calls)
    @rule(fate=st.sampled_from(["done", "done", "done", "lost", "lost reply"]))
    def store_call(self, fate):
        self.mesh.answer_store(carried_out=fate != "lost", lost=fate != "done")

    @rule(seconds=st.sampled_from([0.05, 0.3, 3.0]))
    def tick(self, seconds):
        self.mesh.tick(seconds)

    @rule()
    def replica_stops(self):
        self.mesh.server.pause(self.mesh.server.links[0])

    @rule()
    def replica_follows(self):
        self.mesh.server.resume(self.mesh.server.links[0])

    @precondition(lambda self: any(p.inbox for p in self.mesh.alive))
    @rule(data=st.data())
    def process_receives(self, data):
        self.mesh.receive(self.pick(data, [p for p in self.mesh.alive if p.inbox]))

    @precondition(lambda self: any(p.outbox for p in self.mesh.alive))
    @rule(data=st.data())
    def leader_hears(self, data):
        self.mesh.hear(self.pick(data, [p for p in self.mesh.alive if p.outbox]))

    @rule()
    def everyone_talks(self):
        self.mesh.talk()

    @precondition(lambda self: any(p.connected for p in self.mesh.alive))
    @rule(data=st.data())
    def beat(self, data):
        process = self.pick(data, [p for p in self.mesh.alive if p.connected])
        process.outbox.append(process.core.beat())

    @precondition(lambda self: any(p.connected for p in self.mesh.alive))
    @rule(data=st.data())
    def connection_breaks(self, data):
        self.mesh.cut(self.pick(data, [p for p in self.mesh.alive if p.connected]))

    @precondition(lambda self: any(not p.connected for p in self.mesh.alive))
    @rule(data=st.data())
    def process_returns(self, data):
        self.mesh.connect(self.pick(data, [p for p in self.mesh.alive if not p.connected]))

    @precondition(lambda self: self.mesh.alive)
    @rule(data=st.data(), last_words=st.booleans())
    def process_dies(self, data, last_words):
        process = self.pick(data, self.mesh.alive)
        if last_words and not process.connected:
            # It had just connected again: the leader finds its message after the proof of its exit.
            process.alive = False
            self.mesh.report(process)
            self.mesh.connect(process)
            self.mesh.cut(process)
        else:
            self.mesh.kill(process)
            self.unreported.append(process)

    @precondition(lambda self: self.unreported)
    @rule(data=st.data())
    def exit_is_proven(self, data):
        process = self.pick(data, self.unreported)
        self.unreported.remove(process)
        self.mesh.report(process)

    @precondition(lambda self: self.mesh.starting)
    @rule()
    def replacement_starts(self):
        self.mesh.start(self.mesh.starting.popleft())

    @precondition(lambda self: self.extra < 2)
    @rule()
    def another_handler_joins(self):
        self.extra += 1
        self.mesh.start(f"extra-{self.extra}")

    @precondition(lambda self: self.mesh.alive)
    @rule(data=st.data())
    def process_loses_a_partition(self, data):
        """As after a refusal that it took for a newer grant's."""
        process = self.pick(data, self.mesh.alive)
        if process.held():
            process.core._ownership.drop(min(process.held()))

    def teardown(self):
        mesh = self.mesh
        mesh.server.resume(mesh.server.links[0])
        for process in self.unreported:
            mesh.report(process)
        mesh.settle()
        for process in mesh.alive:
            mesh.cut(process)
            mesh.connect(process)
        mesh.settle()
        mesh.check_at_rest()


TestSchedule = Schedule.TestCase
TestSchedule.settings = settings(stateful_step_count=60)
