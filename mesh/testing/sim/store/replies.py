"""What a command answers, as Python values, and how that looks in RESP.

bytes are bulk strings, int, None and list what they are in RESP 2; a simple string is a `Status`, an
error an `Fault`. Whatever is encoded already (a function's reply) is `Encoded`.
"""

from __future__ import annotations

from typing import Any, TypeAlias


class Status(bytes):
    """A simple string, such as OK."""

    __slots__ = ()


class Encoded(bytes):
    """A reply that is RESP already."""

    __slots__ = ()


class Fault(Exception):
    """An error reply: raised by whatever refuses a command, its text begins with the code."""


Reply: TypeAlias = "bytes | int | Fault | list[Reply] | None"

OK = Status(b"OK")
WRONG_TYPE = "WRONGTYPE Operation against a key holding the wrong kind of value"
NO_INTEGER = "ERR value is not an integer or out of range"
SYNTAX = "ERR syntax error"


def encode(reply: Reply) -> bytes:
    """One reply in RESP 2."""
    said: Any = reply
    kind = type(said)  # not `match`, which takes three times as long
    if kind is bytes:
        return b"$%d\r\n%b\r\n" % (len(said), said)
    if kind is int:
        return b":%d\r\n" % said
    if kind is list:
        return b"*%d\r\n%b" % (len(said), b"".join(map(encode, said)))
    if kind is Encoded:
        return bytes(said)
    if said is None:
        return b"$-1\r\n"
    if isinstance(said, Status):
        return b"+%b\r\n" % bytes(said)
    if isinstance(said, bool):
        return b":%d\r\n" % said
    assert isinstance(said, Fault), said
    text = str(said).replace("\r", " ").replace("\n", " ")
    return b"-%b\r\n" % text.encode(errors="surrogateescape")


def integer(argument: bytes) -> int:
    """An argument that has to be a number of 64 bits.

    Raises:
        Fault: it is none.
    """
    try:
        number = int(argument)
    except ValueError:
        raise Fault(NO_INTEGER) from None
    if argument != b"%d" % number or not -(2**63) <= number < 2**63:
        raise Fault(NO_INTEGER)
    return number


def shown(argument: bytes) -> str:
    """An argument as text, whatever its bytes are; `encode` gives the same bytes back."""
    return argument.decode(errors="surrogateescape")


def no_subcommand(command: str, said: bytes) -> Fault:
    """What a container command says to a subcommand that it has not, or with other arguments."""
    return Fault(
        f"ERR unknown subcommand or wrong number of arguments for '{shown(said)}'. "
        f"Try {command} HELP."
    )
