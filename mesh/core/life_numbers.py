"""The number of a life of the store: a count, and behind it a draw that makes it the number of one opening.

A count alone is given twice. A primary comes back in place and a leader opens life 2 on it; that is not
acknowledged, for a majority has promoted another node, and there it, or a leader that knows nothing of the
first attempt, opens life 2 again. Both nodes have a record that names their own run and the number 2, and
no function could tell a caller of the one from a caller of the other. Nor does the run id help, were it
named by every caller: a process that was demoted and is promoted again has the one that it had.

So it is done as with the ballots of Paxos ("The Part-Time Parliament", 1998): the count orders, and what is
behind it keeps two that count to the same apart. It is one integer, so that whatever compares lives, be it
the function library, a handler with its grant, or a leader with what it has heard, compares openings; two
of the same count have an order, too, and everybody the same. There is nobody to ask for a number that was
never given, while a majority cannot be reached: hence a draw.

A number of up to 65,535 is a count alone: stores that were opened by an earlier release have those.
"""

from __future__ import annotations

MAX_COUNT = 0xFFFF
"""An epoch has 16 bits for it."""
DRAW_BITS = 32
"""With the count 48: a Lua number is exact up to 53."""


def next_life(before: int, draw: int) -> int:
    """The number of an opening behind that life.

    Args:
        before: the highest number known; 0: none.
        draw: DRAW_BITS random bits.

    Raises:
        OverflowError: 65,535 lives are used up.
    """
    if not 0 <= draw < 1 << DRAW_BITS:
        raise ValueError(f"draw {draw} has more than {DRAW_BITS} bits")
    count = count_of(before) + 1
    if count > MAX_COUNT:
        raise OverflowError(f"life {count_of(before)} of the store is the last that can be counted")
    return count << DRAW_BITS | draw


def count_of(life: int) -> int:
    """The how-manieth life it is, as people know it, and epochs."""
    return life if life <= MAX_COUNT else life >> DRAW_BITS
