"""From the fields that an older version of a class stored to those of the version that runs.

    @mesh.entity(version=2)
    class Account:
        cents: int = 0

        @mesh.migrate(1)
        @staticmethod
        def from_euros(fields: dict[str, Any]) -> dict[str, Any]:
            fields["cents"] = fields.pop("balance", 0) * 100
            return fields

A migration runs when a state is read; what it made goes to the store with the key's next change. Until then
the store has what it had, so a migration has to be a function of its argument alone. Fields with defaults may
come and go without any: a missing field takes its default, an unknown one is kept.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from mesh.errors import SetupError

Fields = dict[str, Any]


class Migration:
    """One step, from `from_version` to the one after it. Calling it runs it.

    Args:
        function: what the user wrote; also a static or a class method.
        from_version: of the fields that it takes.
    """

    def __init__(self, function: Any, from_version: int) -> None:
        self._needs_class = isinstance(function, classmethod)
        if isinstance(function, staticmethod | classmethod):
            function = function.__func__
        if not callable(function):
            raise SetupError(
                f"@mesh.migrate({from_version}) is for functions, not {function!r:.80}"
            )
        self._function: Callable[..., Any] = function
        self.from_version = from_version
        self.name: str = getattr(function, "__qualname__", repr(function))

    def __repr__(self) -> str:
        return f"Migration({self.name}, {self.from_version} -> {self.from_version + 1})"

    def __call__(self, fields: Fields) -> Any:
        return self._function(fields)

    def bound(self, owner: type, *, needs_class: bool) -> Migration:
        """The step as it runs for that class.

        Raises:
            SetupError: it does not take exactly one dict of fields.
        """
        function: Any = self._function
        if needs_class or self._needs_class:
            function = function.__get__(owner, type(owner))
        if inspect.iscoroutinefunction(function):
            raise SetupError(f"migration {self.name} is async; it has to be a plain function")
        try:
            inspect.signature(function).bind({})
        except TypeError as error:
            raise SetupError(
                f"migration {self.name} has to take one dict of fields and return one: {error}"
            ) from None
        step = Migration(function, self.from_version)
        step.name = self.name
        return step


def migrate(from_version: int) -> Callable[[Any], Migration]:
    """Mark a function of an entity class that turns stored fields of a version into those of the next.

    Args:
        from_version: of the dict of fields that it takes. It returns a dict, the same one or another.

    Raises:
        SetupError: the version is not a whole number from 1 on.
    """
    if type(from_version) is not int or from_version < 1:
        raise SetupError(
            f"@mesh.migrate takes the version it starts from, 1 or more, not {from_version!r:.80}"
        )

    def mark(function: Any) -> Migration:
        return Migration(function, from_version)

    return mark


def collect(cls: type, version: int) -> dict[int, Migration]:
    """The steps of a class, by the version that they start from; those of its bases included.

    Raises:
        SetupError: two of one version, one that leads beyond `version`, or a gap.
    """
    steps: dict[int, Migration] = {}
    for base in reversed(cls.__mro__):
        own: dict[int, Migration] = {}
        for value in vars(base).values():
            wrapped = isinstance(value, staticmethod | classmethod)
            step = value.__func__ if wrapped else value
            if not isinstance(step, Migration):
                continue
            step = step.bound(cls, needs_class=isinstance(value, classmethod))
            if step.from_version in own:
                raise SetupError(
                    f"{cls.__name__} has two migrations from version {step.from_version}: "
                    f"{own[step.from_version].name} and {step.name}"
                )
            if step.from_version < version:
                own[step.from_version] = step
            elif base is cls:
                raise SetupError(
                    f"migration {step.name} leads from version {step.from_version} to "
                    f"{step.from_version + 1}, but {cls.__name__} is version {version}; "
                    f"raise it with @mesh.entity(version=...)"
                )
        steps.update(own)
    for gap in range(min(steps, default=version), version):
        if gap not in steps:
            raise SetupError(
                f"{cls.__name__} has migrations from {sorted(steps)} and is version {version}; "
                f"the one from {gap} is missing"
            )
    return steps


def run(
    name: str, steps: Mapping[int, Migration], fields: Fields, stored: int, version: int
) -> Fields:
    """The fields as version `version` has them.

    Raises:
        ValueError: stored by a newer version, a step is missing, or it raised or gave back no fields.
    """
    if stored > version:
        raise ValueError(
            f"this state of {name} was stored by version {stored}, this handler runs version {version}; "
            f"it stays as it is until newer code reads it"
        )
    for from_version in range(stored, version):
        step = steps.get(from_version)
        if step is None:
            raise ValueError(
                f"this state of {name} is of version {stored}, and nothing leads from {from_version} to "
                f"{from_version + 1}; add a function marked @mesh.migrate({from_version})"
            )
        try:
            fields = step(fields)
        except Exception as error:
            raise ValueError(f"migration {step.name} failed: {error!r:.200}") from error
        if type(fields) is not dict or not all(type(field) is str for field in fields):
            raise ValueError(f"migration {step.name} returned no dict of fields: {fields!r:.80}")
    return fields
