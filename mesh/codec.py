"""Values to bytes and back: exact, strict, without pickle. For states, arguments, replies, error details.

msgpack, with extension types for what it lacks (mesh.exttypes, mesh.declared). A value comes back equal and
of the same type, or is refused when it is packed: a subclass that nobody declared is never silently turned
into its base. Unpacking gives a value or ValueError, whatever the bytes. (The exception is msgpack's: it
takes a bytearray or memoryview for the bytes in it. Looking for those in every value would double the price
of packing a list, so only the defaults of a class are looked through.)

Equal bytes mean an unchanged value; the runtime finds changes that way. Hence the elements of a set are
written in the order of their bytes, since the iteration order of a set differs between processes. A dict
keeps its order: Python shows it, a round trip restores it, so another order is another value.

An extension type holds bytes that are packed by themselves, one level of packers deeper. Packers are kept
and lent: `msgpack.packb` makes one for each call, with a buffer of 256 KiB, which takes as long as packing
a small state does. One that raised is thrown away, its buffer holds half a value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import msgpack

from mesh.declared import PLAIN, Declared, Found, TypeCodec, declare
from mesh.errors import SetupError
from mesh.exttypes import BY_CODE, BY_TYPE, NAMED

MAX_NESTING = 16
"""Extension types inside one another. msgpack takes 1,024 lists deep for each of them, on the C stack; twice
as many levels of that overflow the 8 MiB that a thread has."""
_BUFFER: dict[str, Any] = {"buf_size": 4096}  # msgpack's stubs are older than it
_KEPT_BYTES = 64 * 1024
"""A packer that wrote more than this is not kept: its buffer never shrinks."""
_MOST_KEPT = 8
_LOOKALIKES = frozenset({bytearray, memoryview, msgpack.ExtType, msgpack.Timestamp})
_LEAVES = frozenset({type(None), bool, int, float, str, bytes})
_UNDECODABLE = (
    ValueError,
    TypeError,
    ArithmeticError,
    LookupError,
    RecursionError,
    SetupError,
    msgpack.UnpackException,
)


def _nothing() -> Found:
    return Found([], complete=True)


class Codec:
    """The types that one entity's values may have.

    Args:
        codecs: enums and dataclasses, or TypeCodec for types of any kind.
        discover: the types that annotations name; asked when a type or name is met that is not known yet,
            since annotations may name what is defined further down.

    Attributes:
        pack: a value's bytes. Raises TypeError or ValueError: it cannot be stored or sent; says why.
    """

    pack: Callable[[Any], bytes]

    def __init__(
        self,
        codecs: Iterable[TypeCodec[Any] | type] = (),
        discover: Callable[[], Found] = _nothing,
    ) -> None:
        self._by_type: dict[type, Declared] = {}
        self._by_name: dict[str, Declared] = {}
        self._discover = discover
        self._complete = False
        for codec in codecs:
            self.add(codec)
        self._top = _Level(self, 0)
        self._readers: dict[int | None, Callable[[bytes], Any]] = {}
        self.pack = self._top.pack

    def __repr__(self) -> str:
        return f"Codec({', '.join(sorted(self._by_name))})"

    def unpack(self, blob: bytes, most: int | None = None) -> Any:
        """The value of those bytes.

        Args:
            blob: as `pack` made them, or by anybody.
            most: elements of one list, dict, tuple or set; as many as there are bytes by default, which
                lets a hostile sender reserve about a thousand times the memory that it sends.

        Raises:
            ValueError: it is none, or of a type that is not declared here.
        """
        return self.reader(most)(blob)

    def reader(self, most: int | None = None) -> Callable[[bytes], Any]:
        """`unpack` with that limit, ready to be called again and again; made once for each limit."""
        known = self._readers.get(most)
        if known is not None:
            return known
        options = self._top.options(most)
        hook, limit, unpackb = options["ext_hook"], options["max_array_len"], msgpack.unpackb

        def read(blob: bytes) -> Any:
            # Not **options: that would double the price of a small value.
            try:
                return unpackb(
                    blob,
                    strict_map_key=False,
                    timestamp=3,
                    ext_hook=hook,
                    max_array_len=limit,
                    max_map_len=limit,
                )
            except _UNDECODABLE as error:
                reason = str(error) if isinstance(error, ValueError) and str(error) else repr(error)
                raise ValueError(reason[:400]) from error

        self._readers[most] = read
        return read

    def add(self, codec: TypeCodec[Any] | type) -> None:
        """Declare a type.

        Raises:
            SetupError: another one has its name, or it cannot be declared.
        """
        new = declare(codec)
        other = self._by_name.setdefault(new.name, new)
        if other.type is not new.type:
            raise SetupError(
                f"two types are named {new.name!r}: {_path(other.type)} and {_path(new.type)}; "
                f'codecs=[mesh.TypeCodec({new.type.__name__}, name="...")] gives one another name'
            )
        self._by_type[new.type] = other

    def resolve(self) -> None:
        """Take in what the annotations name.

        Raises:
            SetupError: two types of one name.
        """
        if self._complete:
            return
        found = self._discover()
        for cls in found.types:
            if cls not in self._by_type:
                self.add(cls)
        self._complete = found.complete

    @property
    def types(self) -> list[type]:
        """Every declared type, those included that annotations name."""
        self.resolve()
        return list(self._by_type)

    def of_type(self, cls: type) -> Declared | None:
        """The declared type, if it is one."""
        if cls not in self._by_type:
            self.resolve()
        return self._by_type.get(cls)

    def of_name(self, name: Any) -> Declared:
        """The type declared under that name.

        Raises:
            ValueError: there is none.
        """
        if type(name) is not str:
            raise ValueError(f"the name of a type is text, not {name!r:.80}")
        if name not in self._by_name:
            self.resolve()
        found = self._by_name.get(name)
        if found is None:
            raise ValueError(
                f"no type is declared as {name!r:.80}; there are {sorted(self._by_name)}. Name it in an "
                f"annotation or in codecs=, and call through the class rather than by name"
            )
        return found


class _Level:
    """Packing and unpacking inside a number of extension types."""

    __slots__ = ("_codec", "_depth", "_free", "_inner", "_options")

    def __init__(self, codec: Codec, depth: int) -> None:
        self._codec = codec
        self._depth = depth
        self._free: list[msgpack.Packer] = []
        self._inner: _Level | None = None
        self._options: dict[int | None, dict[str, Any]] = {}

    def pack(self, value: Any) -> bytes:
        free = self._free
        # Neither threads nor a packer at work ever share one: popping is atomic.
        try:
            packer = free.pop()
        except IndexError:
            packer = msgpack.Packer(default=self._encode, strict_types=True, **_BUFFER)
        blob: bytes = packer.pack(value)
        if len(blob) <= _KEPT_BYTES and len(free) < _MOST_KEPT:
            free.append(packer)
        return blob

    def options(self, most: int | None) -> dict[str, Any]:
        """Of msgpack.unpackb, for values whose lists and maps have at most so many elements."""
        known = self._options.get(most)
        if known is None:
            limit = -1 if most is None else most  # -1: as many as the bytes can hold
            known = self._options[most] = {
                "strict_map_key": False,
                "timestamp": 3,
                "ext_hook": partial(self._decode, most),
                "max_array_len": limit,
                "max_map_len": limit,
            }
        return known

    def _next(self) -> _Level:
        inner = self._inner
        if inner is None:
            if self._depth == MAX_NESTING:
                raise ValueError(
                    f"tuples, sets, dataclasses and the like are nested more than {MAX_NESTING} deep"
                )
            inner = self._inner = _Level(self._codec, self._depth + 1)
        return inner

    def _encode(self, value: Any) -> msgpack.ExtType:
        inner = self._next()
        kind = type(value)
        ext = BY_TYPE.get(kind)
        if ext is not None:
            if kind is set or kind is frozenset:
                return msgpack.ExtType(ext.code, inner.pack(sorted(value, key=inner.pack)))
            return msgpack.ExtType(ext.code, inner.pack(ext.encode(value)))
        try:
            declared = self._codec.of_type(kind)
        except SetupError as error:
            raise TypeError(str(error)) from error
        if declared is None:
            raise TypeError(_refusal(kind))
        return msgpack.ExtType(NAMED, inner.pack([declared.name, declared.encode(value)]))

    def _decode(self, most: int | None, code: int, data: bytes) -> Any:
        parts = msgpack.unpackb(data, **self._next().options(most))
        if code == NAMED:
            if type(parts) is not list or len(parts) != 2:
                raise ValueError(f"a value of a declared type is [name, parts], not {parts!r:.80}")
            return self._codec.of_name(parts[0]).decode(parts[1])
        ext = BY_CODE.get(code)
        if ext is None:
            raise ValueError(f"extension type {code} is not known to this version")
        return ext.decode(parts)


def refuse_lookalikes(value: Any) -> None:
    """Look through lists and dicts for what msgpack takes and gives back as another type.

    Raises:
        TypeError: there is such a value.
    """
    todo = [value]
    while todo:
        one = todo.pop()
        kind = type(one)
        if kind is dict:
            held = [*one, *one.values()]
        elif kind is list:
            held = one
        elif kind in _LOOKALIKES:
            raise TypeError(_refusal(kind))
        else:
            continue
        if not _LEAVES.issuperset(map(type, held)):
            todo += [inner for inner in held if type(inner) not in _LEAVES]


def _refusal(kind: type) -> str:
    if kind in (bytearray, memoryview):
        return f"a {kind.__name__} cannot be stored or sent; make it bytes(...)"
    for plain in PLAIN:
        if issubclass(kind, plain):
            return (
                f"{_path(kind)} cannot be stored or sent: it would come back as {plain.__name__}. Convert "
                f"it, or declare it: codecs=[mesh.TypeCodec({kind.__name__}, encode=..., decode=...)]"
            )
    return (
        f"{_path(kind)} cannot be stored or sent. Enums and dataclasses can when an annotation of the entity "
        f"names them, others with codecs=[mesh.TypeCodec({kind.__name__}, encode=..., decode=...)]"
    )


def _path(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


PLAIN_CODEC = Codec()
"""For values of undeclared types only: calls by name, and the built-in entity."""
pack = PLAIN_CODEC.pack
unpack = PLAIN_CODEC.unpack
