"""Deaths, lost messages and a failing store in any order: the mesh stays safe and comes to rest even."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from unit.mesh_rig import Mesh

from mesh.core.signals import Unproven, Weigh

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

    @initialize(is_up=st.booleans())
    def begin(self, is_up):
        if is_up:
            self.mesh.settle()

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

    # ------------------------------------------------------------------ leases

    @precondition(lambda self: len(self.mesh.alive) > 1)
    @rule(data=st.data(), cause=st.sampled_from(["hang", "unreachable"]), hears=st.booleans())
    def process_is_cut_off_and_taken_over(self, data, cause, hears):
        """All the others hear of it. It renews to the last, and goes on as it was."""
        mesh = self.mesh
        process = self.pick(data, mesh.alive)
        self.everyone_renews()
        mesh.step(Unproven(process.nonce, cause))
        if not hears:
            mesh.cut(process)
        for _ in range(2 * len(mesh.calls)):
            if mesh.calls:
                mesh.answer_store()
        for other in mesh.alive:
            while other is not process and other.inbox:
                mesh.receive(other)

    @rule()
    def everyone_renews(self):
        for process in self.mesh.alive:
            process.renew(self.mesh.now)
            process.renewal_lands()
        self.mesh.check()

    @precondition(lambda self: self.mesh.alive)
    @rule(data=st.data())
    def renewal_leaves(self, data):
        self.pick(data, self.mesh.alive).renew(self.mesh.now)

    @precondition(lambda self: any(p.sent for p in self.mesh.processes.values()))
    @rule(data=st.data())
    def renewal_lands(self, data):
        """Of a dead process, too: its bytes were under way."""
        self.pick(data, [p for p in self.mesh.processes.values() if p.sent]).renewal_lands()
        self.mesh.check()

    @precondition(lambda self: self.mesh.reads)
    @rule(away=st.sampled_from([False, False, False, True]))
    def renewals_are_read(self, away):
        self.mesh.read_renewals(away=away)

    @precondition(lambda self: self.mesh.alive)
    @rule(data=st.data(), cause=st.sampled_from(["hang", "unreachable"]))
    def process_is_given_up(self, data, cause):
        """On whatever evidence: it may be as well as any."""
        process = self.pick(data, self.mesh.alive)
        self.mesh.step(Unproven(process.nonce, cause))

    @precondition(lambda self: self.mesh.alive)
    @rule(data=st.data(), weight=st.sampled_from([0.0, 0.5, 1.0]))
    def process_is_weighed(self, data, weight):
        self.mesh.step(Weigh(self.pick(data, self.mesh.alive).nonce, weight))

    # ----------------------------------------------------------------- leaders

    @precondition(lambda self: len(self.mesh.former) < 3)
    @rule(new_life=st.booleans(), carried_out=st.booleans(), knows_deaths=st.booleans())
    def another_leader_begins(self, new_life, carried_out, knows_deaths):
        self.mesh.change_leader(
            new_life=new_life, carried_out=carried_out, knows_deaths=knows_deaths
        )

    @precondition(lambda self: self.mesh.former)
    @rule(data=st.data())
    def former_leader_goes_on(self, data):
        self.mesh.former_goes_on(data.draw(st.sampled_from(self.mesh.former), label="leader"))

    @precondition(lambda self: any(p.late for p in self.mesh.alive))
    @rule(data=st.data())
    def process_hears_a_former_leader(self, data):
        self.mesh.receive_late(self.pick(data, [p for p in self.mesh.alive if p.late]))

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
        for process in mesh.alive:
            mesh.step(Weigh(process.nonce, 1.0))
            if not process.connected:
                mesh.connect(process)
        mesh.settle()
        for process in mesh.alive:
            mesh.cut(process)
            mesh.connect(process)
        mesh.settle()
        mesh.check_at_rest()


TestSchedule = Schedule.TestCase
TestSchedule.settings = settings(stateful_step_count=60)
