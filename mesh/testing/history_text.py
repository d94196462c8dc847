"""A history as text, for a report, and back.

A line for each begin and each end, in the order in which they were recorded, so that other events can be put
between them:

    0.1  a  #1  Account.deposit('alice', 5, timeout=2.0, idempotency_key='order-17')
    0.2  b  #2  exists(Account, 'alice')
    0.3  b  #2  unknown OutcomeUnknown('sent, and no verdict in 2 s')
    0.4  a  #1  -> 5
    0.5  b  #2  settled not executed

Times are exact. Values are as Python writes them; those that it cannot read back from there are
`packed('...')`, the hexadecimal digits of what the entity's codec makes of them.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from mesh.codec import PLAIN_CODEC, Codec
from mesh.entities import spec_of
from mesh.testing.history import End, History, Operation
from mesh.testing.models import BUILT_IN

_LINE = re.compile(r"(\S+)  (\S+)  #(\d+)  (.*)")
_END = re.compile(r"(->|raised|executed|not executed|unknown|cancelled|running)(?: (.*))?")
_SETTLED = "settled "
_PACKED = "packed"


class Event(NamedTuple):
    """A begin or an end.

    Attributes:
        order: where it stands in the history.
        at: seconds.
        line: of text, without its time.
    """

    order: float
    at: float
    line: str


def events(operations: Iterable[Operation], *entities: type) -> list[Event]:
    """A history's begins and ends, in their order.

    Args:
        operations: of the history, or some of them.
        entities: the classes that it is of, where their values are more than plain ones.
    """
    codecs = _codecs(entities)
    found = [e for o in operations for e in _events(o, codecs.get(o.entity, PLAIN_CODEC))]
    return sorted(found)


def dump(operations: Iterable[Operation], *entities: type) -> str:
    """A history's text; see `events`."""
    return "".join(f"{event.at!r}  {event.line}\n" for event in events(operations, *entities))


def parse(text: str, *entities: type) -> History:
    """The history of that text; numbers are given anew, in the order of the begins.

    Args:
        text: as `dump` wrote it.
        entities: the classes that it is of, where their values are more than plain ones.

    Raises:
        ValueError: it is none, and in which line.
    """
    reader = _Reader(_codecs(entities))
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                reader.take(line.strip())
            except (ValueError, SyntaxError, KeyError) as error:
                raise ValueError(f"line {number}: {line.strip()!r:.200}: {error}") from error
    return reader.history


def _codecs(entities: Iterable[type]) -> dict[str, Codec]:
    specs = [spec_of(cls) for cls in (*BUILT_IN, *entities)]
    return {spec.name: spec.codec for spec in specs}


def _events(operation: Operation, codec: Codec) -> Iterator[Event]:
    def show(value: Any) -> str:
        return _shown(value, codec)

    who = f"{operation.client}  #{operation.number}  "
    call = operation.write(show)
    if operation.timeout != math.inf:
        call = f"{call[:-1]}, timeout={operation.timeout!r})"
    yield Event(operation.first, operation.begun, who + call)
    outcome = operation.write_outcome(show)
    if operation.settled is not None:
        if operation.released is not None:
            yield Event(operation.released, operation.ended, f"{who}{operation.told.value}")
        yield Event(operation.last, operation.settled, f"{who}{_SETTLED}{outcome}")
    elif operation.end is not End.RUNNING:
        yield Event(operation.last, operation.ended, who + outcome)


def _shown(value: Any, codec: Codec) -> str:
    text = repr(value)
    try:
        back = ast.literal_eval(text)
        if codec.pack(back) == codec.pack(value):
            return text
    except (ValueError, SyntaxError, TypeError):
        pass
    return f"{_PACKED}({codec.pack(value).hex()!r})"


class _Reader:
    """Makes the history again, event by event."""

    def __init__(self, codecs: dict[str, Codec]) -> None:
        self.history = History(self._now)
        self._codecs = codecs
        self._at = 0.0
        self._open: dict[int, Operation] = {}

    def _now(self) -> float:
        return self._at

    def take(self, line: str) -> None:
        """One line."""
        found = _LINE.fullmatch(line)
        if found is None:
            raise ValueError("a line is: seconds, client, #number, what; two spaces between them")
        at, client, number, what = found.groups()
        self._at = float(at)
        ends = _END.fullmatch(what.removeprefix(_SETTLED))
        if ends is None:
            self._open[int(number)] = self._begin(client, what)
            return
        operation = self._open[int(number)]
        end, rest = End(ends[1]), ends[2]
        codec = self._codecs.get(operation.entity, PLAIN_CODEC)
        value: Any = None
        if end is End.RETURNED:
            value = _value(_expression(rest), codec)
        elif rest:
            error = _expression(rest)
            if not isinstance(error, ast.Call) or len(error.args) != 1:
                raise ValueError("an error is: its class, and its message in parentheses")
            value = ast.unparse(error.func), _value(error.args[0], codec)
        if what.startswith(_SETTLED):
            self.history.settle(operation, end, value)
        elif end is End.RETURNED:
            self.history.returned(operation, value)
        else:
            self.history.finish(operation, end, value)

    def _begin(self, client: str, text: str) -> Operation:
        call = parse_call(text, self._codecs)
        return self.history.begin(
            client,
            call.name,
            call.key,
            call.args,
            call.kwargs,
            timeout=call.timeout,
            idempotency_key=call.idempotency_key,
        )


class Called(NamedTuple):
    """A call, as somebody wrote it.

    Attributes:
        name: "Entity.method".
        timeout: seconds; infinite where none is named.
    """

    name: str
    key: str | bytes
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    timeout: float
    idempotency_key: str | None


def parse_call(text: str, codecs: Mapping[str, Codec] | None = None) -> Called:
    """The call that is written so: `KV.incr('k', 5, timeout=2.0)`, `exists(KV, 'k')`.

    Args:
        text: all of it.
        codecs: by entity, for values that are written as `packed('...')`.

    Raises:
        ValueError, SyntaxError: it is none.
    """
    call = _expression(text)
    if not isinstance(call, ast.Call) or not call.args:
        raise ValueError("this is neither a call on a key nor an end")
    name, arguments = ast.unparse(call.func), call.args
    if name == "call":
        name, arguments = _value(arguments[0], PLAIN_CODEC), arguments[1:]
    elif "." not in name:
        name, arguments = f"{ast.unparse(arguments[0])}.~{name}", arguments[1:]
    codec = (codecs or {}).get(name.partition(".")[0], PLAIN_CODEC)
    key, *args = (_value(argument, codec) for argument in arguments)
    kwargs = {str(word.arg): _value(word.value, codec) for word in call.keywords}
    timeout = kwargs.pop("timeout", math.inf)
    idempotency_key = kwargs.pop("idempotency_key", None)
    return Called(name, key, tuple(args), kwargs, timeout, idempotency_key)


def _expression(text: str) -> ast.expr:
    return ast.parse(text, mode="eval").body


def _value(node: ast.expr, codec: Codec) -> Any:
    if isinstance(node, ast.Call) and ast.unparse(node.func) == _PACKED:
        return codec.unpack(bytes.fromhex(ast.literal_eval(node.args[0])))
    return ast.literal_eval(node)


__all__ = ["Called", "Event", "dump", "events", "parse", "parse_call"]
