"""A scenario's text, read: a schedule of a simulated mesh that anybody can follow.

    # A call that was carried out, whose handler never heard so.
    #
    # Lines like this one are for the reader, and the first of them is the scenario's name.

    mesh: 2 handlers, 1 client, 4 partitions

    o1 owns 'k'
    o2 is another handler

    as soon as the store carries out a commit of o1:
        break o1 - the store
        cut o1 from the store
    a begins KV.incr('k')
    0.5 s pass
    kill o1
    a ends -> 1
    a: KV.get('k') -> 1

    then every promise holds

Steps are taken one after the other; one that waits (for an end, for an event) lets virtual time pass. Those
under `as soon as` are taken in the very step in which it happens, before anything else does: the reply to
that commit is not on its way yet. Handlers, supervisors and nodes of the store get names by what they are to
the scenario; clients are called a, b, c.

What can be written is `GRAMMAR`, one line a step.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from mesh.testing.sim.plan import Left

GRAMMAR: dict[str, str] = {
    "owns": r"(?P<name>[\w-]+) owns (?P<key>'[^']*')",
    "replaces": r"(?P<name>[\w-]+) replaces (?P<who>.*)",
    "another": r"(?P<name>[\w-]+) is (?:another handler|the other handler)",
    "is": r"(?P<name>[\w-]+) is the (?P<role>primary|leader)",
    "is one": r"(?P<name>[\w-]+) is (?:a|another|the other) (?P<role>replica|standby)",
    "given up": r"let (?P<key>'[^']*') be a key that (?P<who>.*) has given up",
    "pass": r"(?P<s>[\d.]+) s pass(?:es)?",
    "at": r"at (?P<s>[\d.]+) s",
    "load": r"(?P<who>.*?) calls? one key after the other, each (?P<s>[\d.]+) s",
    "quiet": r"(?P<who>.*?) calls? no more",
    "begin": r"(?P<client>\w) begins (?P<call>.*\))",
    "end": r"(?P<client>\w) ends (?P<end>.*)",
    "running": r"(?P<client>\w) has not ended",
    "ended": r"(?P<client>\w) has ended",
    "cancel": r"(?P<client>\w) stops waiting",
    "call": r"(?P<client>\w): (?P<call>.*)",
    "kill": r"kill (?P<who>.*)",
    "start": r"start (?P<who>.*?) again(?:, (?P<how>.*))?",
    "attach": r"attach a new replica (?P<name>\w+)",
    "keep": r"copy every disk",
    "promote": r"make (?P<who>.*) a primary",
    "demote": r"make (?P<who>.*?) follow (?P<others>.*)",
    "pause": r"pause (?P<who>.*)",
    "resume": r"resume (?P<who>.*)",
    "starve": r"starve (?P<who>.*): one step each (?P<s>[\d.]+) s",
    "free": r"(?P<who>.*) runs freely",
    "cut": r"cut (?P<who>.*?) from (?P<others>.*)",
    "hold": r"hold back what (?P<who>.*?) sends to (?P<others>.*)",
    "release": r"let through what (?P<who>.*?) sends to (?P<others>.*)",
    "mend": r"mend the network",
    "break": r"break (?P<who>.*?) - (?P<others>.*)",
    "slow": r"slow (?P<who>.*?) - (?P<others>.*?) by (?P<s>[\d.]+) s",
    "as soon as": r"as soon as (?P<event>.*):",
    "until": r"wait until (?P<event>.*)",
    "nothing": r"(?P<who>.*) owns nothing",
    "share": r"(?P<who>.*) owns (?P<number>\d+) partitions?",
    "set": r"the in-sync set is (?P<members>.*)",
    "loss": r"a loss is reported",
    "no loss": r"no loss is reported",
    "all ended": r"then every call has ended",
    "verdict": r"then every promise holds",
}
"""What a step may say, by its name: a regular expression of the whole line."""

AT_ONCE = frozenset(
    {
        "begin",
        "cancel",
        "kill",
        "start",
        "attach",
        "keep",
        "promote",
        "demote",
        "pause",
        "resume",
        "starve",
    }
    | {"free", "cut", "hold", "release", "mend", "break", "slow"}
)
"""Steps that take no time, and so may be taken as soon as something happens."""

EVENTS: dict[str, str] = {
    "commit": r"the store carries out a commit of (?P<who>.*)",
    "tell": r"the store gives (?P<key>'[^']*') to (?P<who>.*)",
    "moved": r"(?P<key>'[^']*') has another owner than (?P<who>.*)",
    "revoked": r"the store revokes (?P<who>.*)",
    "life": r"a life is opened on (?P<who>.*)",
    "changed": r"the store records another set",
    "dead": r"(?P<who>.*) is dead",
    "promoted": r"(?P<who>.*) is the primary",
    "led": r"another supervisor than (?P<who>.*) leads",
    "set": r"the in-sync set is (?P<members>.*)",
    "loss": r"a loss is reported",
    "settled": r"nothing is moving",
}
"""What a scenario can wait for, the same way."""

_MESH = re.compile(r"mesh: (.*)")
_SIZE = re.compile(r"(\d+) (handler|client|replica|partition|supervisor|Sentinel)s?")
RESTARTS: dict[str, Left] = {
    "its disk as it was": "intact",
    "without what was not synced": "power lost",
    "its disk as copied": "rolled back",
    "its disk empty": "empty",
}
"""How a node of the store is started again; `as a primary` may stand before it, with a comma."""
_UNWATCHED = "nobody watched"
"""Only proven exits count; nobody looks for handlers that hang or cannot be reached."""
_SYNCED = "every write synced"
"""The store's nodes sync each write before anybody hears of it."""
_INDENT = "    "


@dataclass(frozen=True, slots=True)
class Step:
    """One line.

    Attributes:
        number: of the line.
        text: as it is written.
        verb: its name in GRAMMAR.
        words: what it is about, by the names there.
        inner: the steps under it, of an `as soon as`.
    """

    number: int
    text: str
    verb: str
    words: dict[str, str]
    inner: list[Step] = field(default_factory=list)

    def __str__(self) -> str:
        return f"line {self.number}: {self.text}"


@dataclass(frozen=True, slots=True)
class Script:
    """A whole scenario.

    Attributes:
        name: its first line.
        story: what its reader is told.
        size: of the mesh: numbers of handlers, clients, replicas, partitions, supervisors and Sentinels.
        steps: in their order.
        watched, synced: as in a Plan.
    """

    name: str
    story: str
    size: dict[str, int]
    steps: tuple[Step, ...]
    watched: bool = True
    synced: bool = False


class Unreadable(ValueError):
    """A line that says nothing a scenario can do."""


def read(text: str) -> Script:
    """Read a scenario.

    Raises:
        Unreadable: and in which line.
    """
    story: list[str] = []
    size = {"handler": 2, "client": 1, "replica": 2, "partition": 4}
    size |= {"supervisor": 1, "Sentinel": 0}
    steps: list[Step] = []
    watched, synced = True, False
    for number, line in enumerate(text.splitlines(), 1):
        bare = line.strip()
        if not bare:
            continue
        if bare.startswith("#"):
            story.append(bare[1:].strip())
        elif mesh := _MESH.fullmatch(bare):
            for count, what in _SIZE.findall(mesh[1]):
                size[what] = int(count)
            watched, synced = _UNWATCHED not in mesh[1], _SYNCED in mesh[1]
        elif line.startswith(_INDENT):
            if not steps or steps[-1].verb != "as soon as":
                raise Unreadable(
                    f"line {number}: nothing is above it that it could belong to: {bare}"
                )
            steps[-1].inner.append(_inner(number, bare))
        else:
            steps.append(_step(number, bare))
    if not story:
        raise Unreadable(
            "a scenario begins with its name, as in: # A call that was carried out twice"
        )
    if not steps or steps[-1].verb != "verdict":
        raise Unreadable("a scenario ends with: then every promise holds")
    return Script(story[0], "\n".join(story[1:]).strip(), size, tuple(steps), watched, synced)


def _step(number: int, line: str) -> Step:
    for verb, pattern in GRAMMAR.items():
        if found := re.fullmatch(pattern, line):
            step = Step(number, line, verb, found.groupdict())
            if verb == "start":
                _check_restart(step)
            if "event" in step.words:
                event(step)
            return step
    raise Unreadable(f"line {number}: this is no step of a scenario: {line}")


def _check_restart(step: Step) -> None:
    how = (step.words["how"] or "").removeprefix("as a primary").removeprefix(", ")
    if how and how not in RESTARTS:
        raise Unreadable(f"{step}: it is started again {', or '.join(RESTARTS)}, not {how}")


def _inner(number: int, line: str) -> Step:
    step = _step(number, line)
    if step.verb not in AT_ONCE:
        raise Unreadable(
            f"{step}: this takes time, and nothing may that is done as soon as something happens"
        )
    return step


def event(step: Step) -> tuple[str, dict[str, str]]:
    """What a step waits for: its name in EVENTS, and what it is about.

    Raises:
        Unreadable: nothing that can be waited for.
    """
    for name, pattern in EVENTS.items():
        if found := re.fullmatch(pattern, step.words["event"]):
            return name, found.groupdict()
    raise Unreadable(f"{step}: this cannot be waited for")


def names(text: str) -> list[str]:
    """Those in "x", "x and y" or "x, y and z"."""
    return [name.strip() for name in re.split(r",| and ", text) if name.strip()]
