"""Users, and what they may do: ACL SETUSER's rules as far as a mesh and its tests use them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from mesh.testing.sim.store.commands import BY_NAME, Command
from mesh.testing.sim.store.globs import is_match
from mesh.testing.sim.store.replies import Fault

DEFAULT = "default"


class User:
    """One user and its permissions."""

    __slots__ = ("channels", "commands", "enabled", "everything", "keys", "name", "passwords")

    def __init__(self, name: str) -> None:
        self.name = name
        self.reset()

    def reset(self) -> None:
        """Nothing is allowed."""
        self.enabled = False
        self.passwords: set[bytes] | None = set()
        """None: any password will do."""
        self.commands: set[str] = set()
        self.keys: list[bytes] = []
        self.channels: list[bytes] = []
        self.everything = False
        """All of it: nothing needs to be looked up."""

    def apply(self, rule: bytes) -> None:
        """One word of SETUSER.

        Raises:
            Fault: it is not modelled, or there is no such command.
        """
        text = rule.decode()
        if (plain := _PLAIN.get(text)) is not None:
            plain(self)
        elif text[:1] in _PREFIXES:
            _PREFIXES[text[:1]](self, rule[1:])
        else:
            raise Fault(f"ERR Error in ACL SETUSER modifier '{text}': Syntax error")
        self.everything = (
            len(self.commands) == len(BY_NAME) and b"*" in self.keys and b"*" in self.channels
        )

    def _named(self, name: str) -> set[str]:
        if name.startswith("@"):
            category = name[1:]
            commands = BY_NAME.values()
            return {c.name for c in commands if category == "all" or category in c.categories}
        # A subcommand stands for its command: nothing here tells them apart.
        name, _, _ = name.partition("|")
        if name.encode() not in BY_NAME:
            raise Fault(
                f"ERR Error in ACL SETUSER modifier '{name}': Unknown command or category name in ACL"
            )
        return {name}

    def _allow(self, rule: bytes) -> None:
        self.commands |= self._named(rule.decode().lower())

    def _forbid(self, rule: bytes) -> None:
        self.commands -= self._named(rule.decode().lower())

    def _add_password(self, password: bytes) -> None:
        self.passwords = (self.passwords or set()) | {password}

    def _drop_password(self, password: bytes) -> None:
        self.passwords = (self.passwords or set()) - {password}

    def accepts(self, password: bytes) -> bool:
        """Whether that login is right."""
        return self.enabled and (self.passwords is None or password in self.passwords)

    def check(self, command: Command, args: Sequence[bytes]) -> None:
        """Refuse what the user may not do.

        Raises:
            Fault: NOPERM.
        """
        if self.everything:
            return
        if command.name not in self.commands and not command.no_auth:
            name = command.full_name(args)
            raise Fault(f"NOPERM User {self.name} has no permissions to run the '{name}' command")
        self.check_keys(command.named_keys(args))
        for channel in command.channels(args):
            if not any(is_match(pattern, channel) for pattern in self.channels):
                raise Fault("NOPERM No permissions to access a channel")

    def check_keys(self, keys: Iterable[bytes]) -> None:
        """Refuse keys that the user may not touch.

        Raises:
            Fault: NOPERM.
        """
        for key in () if self.everything else keys:
            if not any(is_match(pattern, key) for pattern in self.keys):
                raise Fault("NOPERM No permissions to access a key")


_PLAIN: dict[str, Callable[[User], None]] = {
    "reset": User.reset,
    "on": lambda user: setattr(user, "enabled", True),
    "off": lambda user: setattr(user, "enabled", False),
    "nopass": lambda user: setattr(user, "passwords", None),
    "resetpass": lambda user: setattr(user, "passwords", set()),
    "allkeys": lambda user: setattr(user, "keys", [b"*"]),
    "resetkeys": lambda user: setattr(user, "keys", []),
    "allchannels": lambda user: setattr(user, "channels", [b"*"]),
    "resetchannels": lambda user: setattr(user, "channels", []),
    "allcommands": lambda user: user.apply(b"+@all"),
    "nocommands": lambda user: user.apply(b"-@all"),
}
_PREFIXES: dict[str, Callable[[User, bytes], None]] = {
    ">": User._add_password,
    "<": User._drop_password,
    "~": lambda user, pattern: user.keys.append(pattern),
    "&": lambda user, pattern: user.channels.append(pattern),
    "+": User._allow,
    "-": User._forbid,
}


class Users:
    """All users of a node.

    Args:
        password: of the default user; None: it needs no login.
    """

    def __init__(self, password: bytes | None) -> None:
        self.default = User(DEFAULT)
        for rule in (b"on", b"allkeys", b"allchannels", b"allcommands"):
            self.default.apply(rule)
        self.default.apply(b"nopass" if password is None else b">" + password)
        self._by_name = {DEFAULT: self.default}

    @property
    def at_first(self) -> User | None:
        """Whom a connection acts for before any login."""
        free = self.default.enabled and self.default.passwords is None
        return self.default if free else None

    def log_in(self, args: Sequence[bytes]) -> User:
        """AUTH [user] password.

        Raises:
            Fault: the login is wrong.
        """
        if len(args) == 1 and self.default.passwords is None:
            raise Fault(
                "ERR AUTH <password> called without any password configured for the default user. "
                "Are you sure your configuration is correct?"
            )
        name = DEFAULT if len(args) == 1 else args[0].decode(errors="replace")
        user = self._by_name.get(name)
        if user is None or not user.accepts(args[-1]):
            raise Fault("WRONGPASS invalid username-password pair or user is disabled.")
        return user

    def set(self, name: bytes, rules: Sequence[bytes]) -> None:
        """ACL SETUSER: all rules or none."""
        text = name.decode()
        fresh = User(text)
        known = self._by_name.get(text)
        if known is not None:
            for attribute in ("enabled", "everything"):
                setattr(fresh, attribute, getattr(known, attribute))
            fresh.passwords = None if known.passwords is None else set(known.passwords)
            fresh.commands = set(known.commands)
            fresh.keys, fresh.channels = list(known.keys), list(known.channels)
        for rule in rules:
            fresh.apply(rule)
        if known is None:
            self._by_name[text] = fresh
            return
        for attribute in User.__slots__:
            setattr(known, attribute, getattr(fresh, attribute))

    def delete(self, names: Sequence[bytes]) -> list[User]:
        """ACL DELUSER: those who were there."""
        gone = [self._by_name.pop(name.decode(), None) for name in names if name != b"default"]
        return [user for user in gone if user is not None]
