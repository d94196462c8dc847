"""What happened, in words, for whoever reads it at 3 a.m.: who, what became of it, what is left to do.

One sentence for each kind of event that a supervisor records. `mesh events`, the terminal of `mesh
up` and the log all say it in the same words; an event of a kind that is not here is told by its
fields, so nothing is ever left out.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

Event = Mapping[str, Any]


def in_words(event: Event) -> str:
    """An event as a sentence, without its time."""
    try:
        words = _WORDS[event["kind"]](event)
    except KeyError:  # a newer supervisor's kind, or one with other fields
        words = _plainly(event)
    return " / ".join(line.strip() for line in words.splitlines())


def level_of(event: Event) -> int:
    """How grave it is, as `logging` counts."""
    return _LEVELS.get(event["kind"], logging.INFO)


def _plainly(event: Event) -> str:
    rest = (f"{k} {_value(v)}" for k, v in event.items() if k not in ("kind", "at"))
    return "  ".join((str(event["kind"]), *rest))


def _value(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {_value(v)}" for k, v in value.items())
    return ", ".join(map(_value, value)) if isinstance(value, list) else str(value)


def _failover(e: Event) -> str:
    phases = e["phases_ms"]
    parts = ", ".join(f"{name} {ms:.1f}" for name, ms in phases.items())
    return (
        f"{e['handler']} (pid {e['pid']}) is dead, cause: {e['cause']}; others have taken over its "
        f"{_partitions(e)}, in {sum(phases.values()):.1f} ms ({parts})"
    )


def _handover(e: Event) -> str:
    return f"{_partitions(e)} moved to {_value(e['to'])}, as planned, in {e['took_ms']:.0f} ms"


def _partitions(e: Event) -> str:
    number = e["partitions"]
    return f"{number} partition{'' if number == 1 else 's'}"


_WORDS: dict[str, Callable[[Event], str]] = {
    "leading": lambda e: (
        f"{e['supervisor']} leads the mesh (life {e['life']} of the store, token {e['token']})"
    ),
    "leader_stopped": lambda e: (
        f"this supervisor leads no more, the store says {e['reason']}: {e['detail'] or 'no detail'}; "
        f"another one leads, or the store's primary changed"
    ),
    "leader_missed": lambda e: (
        f"{e['supervisor']}, which led the mesh, is not heard of any more, says {e['by']}: "
        f"{e['reason']}; calls go on, and another one bids for the lead"
    ),
    "standing_down": lambda e: f"{e['supervisor']} leads no more: {e['reason']}",
    "supervisor_here": lambda e: f"supervisor {e['supervisor']} is here (pid {e['pid']})",
    "supervisor_lost": lambda e: f"supervisor {e['supervisor']} is gone ({e['reason']})",
    "life_closed": lambda e: (
        f"the store has another primary, or it was restarted: life {e['life']} is not open there"
    ),
    "warden_here": lambda e: (
        f"warden {e['warden']} (pid {e['pid']}) watches {e['watching']} processes on {e['node']}"
    ),
    "warden_lost": lambda e: (
        f"warden {e['warden']} on {e['node']} is gone ({e['reason']}); until one is back, a death "
        f"there is noticed more slowly"
    ),
    "handler_suspect": lambda e: (
        f"{e['handler']} neither shows that its loop turns nor answers a probe ({e['state']}); it keeps "
        f"everything, and is looked at"
    ),
    "handler_recovered": lambda e: f"the loop of {e['handler']} turns again",
    "handler_killed": lambda e: (
        f"the loop of {e['handler']} is {e['state']}: its warden is told to kill it"
    ),
    "handler_weight": lambda e: (
        f"{e['handler']} is to hold a share of weight {e['weight']:g} from now on, {e['why']}"
        f"{': ' + e['sign'] if e['sign'] else ''}"
    ),
    "slow_method": lambda e: (
        f"{e['method'] or 'something'} has kept {e['handler']} for {e['seconds']:.1f} s, in which it serves "
        f"nothing else; its limit is {e['limit_s']:g} s. Make it async, or blocking=True"
    ),
    "handler_starting": lambda e: f"{e['handler']} is being started",
    "handler_started": lambda e: f"{e['handler']} is here (pid {e['pid']})",
    "handler_start_failed": lambda e: (
        f"{e['handler']} could not be started and is tried again: {e['reason']}"
    ),
    "failover": _failover,
    "handover": _handover,
    "store_lost": lambda e: (
        f"the store has no primary; {_value(e['answering']) or 'no node'} answers. Writes wait until its "
        f"Sentinels have promoted one"
    ),
    "store_short": lambda e: (
        f"nothing is acknowledged: of the store's replicas {_value(e['members'])} none is left that "
        f"could have it, and {e['needed']} is needed: start one, or mend its link"
    ),
    "store_refused": lambda e: (
        f"{e['store']} says it is the store's primary and is not used: {e['reason']}; its Sentinels "
        f"are asked for another one"
    ),
    "in_sync": lambda e: (
        f"a write counts once {_value(e['members'])} have it, beside the primary (set {e['version']})"
    ),
    "loss_possible": lambda e: (
        f"acknowledged writes may be missing in {_partitions(e)}: "
        + (
            f"the store of life {e['life']} lacks what {e['handler']} had acknowledged before"
            if "handler" in e
            else f"the store goes on at {e['store']}, though {e['reason']}"
        )
    ),
}

_LEVELS = {
    "handler_suspect": logging.WARNING,
    "handler_killed": logging.WARNING,
    "handler_weight": logging.WARNING,
    "slow_method": logging.WARNING,
    "failover": logging.WARNING,
    "leader_missed": logging.WARNING,
    "supervisor_lost": logging.WARNING,
    "warden_lost": logging.WARNING,
    "handler_start_failed": logging.ERROR,
    "leader_stopped": logging.ERROR,
    "life_closed": logging.WARNING,
    "loss_possible": logging.ERROR,
    "store_lost": logging.WARNING,
    "store_short": logging.ERROR,
    "store_refused": logging.ERROR,
}
