"""What can be written in a scenario, and what is said of what cannot."""

import pytest

from mesh.testing.sim.script import Unreadable, event, names, read

WHOLE = """
# Its name
#
# What it is about,
# in words.

mesh: 3 handlers, 2 clients, 1 partition

o1 owns 'k'
as soon as the store carries out a commit of o1:
    break o1 - the store
    cut o1, o2 from the store and s-0
a begins Counter.incr('k', timeout=2.0)
a: Register.write('k', 'a: b -> 1') -> None
wait until 'k' has another owner than o1
0.5 s pass

then every promise holds
"""


def test_a_scenario_has_a_name_a_story_a_mesh_and_steps():
    script = read(WHOLE)
    assert script.name == "Its name"
    assert script.story == "What it is about,\nin words."
    of_store = {"replica": 2, "Sentinel": 0}
    assert script.size == {"handler": 3, "client": 2, "partition": 1, "supervisor": 1} | of_store
    assert [step.verb for step in script.steps] == [
        "owns",
        "as soon as",
        "begin",
        "call",
        "until",
        "pass",
        "verdict",
    ]
    assert script.steps[0].words == {"name": "o1", "key": "'k'"}
    assert str(script.steps[-1]) == "line 18: then every promise holds"


@pytest.mark.parametrize(
    ("line", "verb", "words"),
    [
        ("A is the primary", "is", {"name": "A", "role": "primary"}),
        ("C is another replica", "is one", {"name": "C", "role": "replica"}),
        ("o2 is another handler", "another", {"name": "o2"}),
        ("start A again", "start", {"who": "A", "how": None}),
        ("start A again, as a primary", "start", {"who": "A", "how": "as a primary"}),
        (
            "start A again, as a primary, its disk empty",
            "start",
            {"who": "A", "how": "as a primary, its disk empty"},
        ),
        ("cut A and B from everybody else", "cut", {"who": "A and B", "others": "everybody else"}),
        ("the in-sync set is B and C", "set", {"members": "B and C"}),
        ("attach a new replica D", "attach", {"name": "D"}),
        ("make B a primary", "promote", {"who": "B"}),
        ("make C follow B", "demote", {"who": "C", "others": "B"}),
    ],
)
def test_a_line_is_read_as_what_it_says(line, verb, words):
    step = read(f"# a\n{line}\nthen every promise holds").steps[0]
    assert (step.verb, step.words) == (verb, words)


def test_steps_under_an_event_belong_to_it():
    broken, cut = read(WHOLE).steps[1].inner
    assert (broken.verb, broken.words) == ("break", {"who": "o1", "others": "the store"})
    assert names(cut.words["who"]) == ["o1", "o2"]
    assert names(cut.words["others"]) == ["the store", "s-0"]


def test_events_are_what_steps_wait_for():
    steps = read(WHOLE).steps
    assert event(steps[1]) == ("commit", {"who": "o1"})
    assert event(steps[4]) == ("moved", {"key": "'k'", "who": "o1"})


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("kill o1\nthen every promise holds", "begins with its name"),
        ("# a\nkill o1", "ends with: then every promise holds"),
        ("# a\nkil o1\nthen every promise holds", "line 2: this is no step of a scenario: kil o1"),
        ("# a\nkill o1\n    kill o2\nthen every promise holds", "line 3: nothing is above it"),
        (
            "# a\nas soon as it rains:\n    kill o1\nthen every promise holds",
            "line 2: .* waited for",
        ),
        (
            "# a\nas soon as the store gives 'k' to o1:\n    1 s passes\nthen every promise holds",
            "line 3: .* takes time",
        ),
        (
            "# a\nstart A again, in tears\nthen every promise holds",
            "line 2: .* its disk empty, not in tears",
        ),
    ],
)
def test_what_says_nothing_is_refused_with_its_line(text, why):
    with pytest.raises(Unreadable, match=why):
        read(text)
