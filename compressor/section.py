"""What every table of a recipe is: frozen, strict about its keys, and clear about a key that answers others.

Where ``path`` of [vocab] is given, the vocabulary's size is its own (``excludes``): a size beside it is refused, and
none is written. No torch here.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer, model_validator


class Section(BaseModel):
    """Base of every table."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    excludes: ClassVar[Mapping[str, tuple[str, ...]]] = {}  # a key, and those that it answers
    flags: ClassVar[Mapping[str, str]] = {}  # the flag of a key that is called otherwise

    def given(self, *names: str) -> list[str]:
        """Return those of ``names`` that the user has set."""
        return [name for name in names if name in self.model_fields_set and getattr(self, name) is not None]

    def answered(self) -> tuple[str, ...]:
        """Return the keys that another one, which is given, leaves nothing to say to."""
        return tuple(name for key, names in self.excludes.items() if getattr(self, key) for name in names)

    @model_validator(mode="after")
    def says_nothing_twice(self) -> Self:
        """Refuse a key beside the one that answers it."""
        for key, names in self.excludes.items():
            beside = self.given(*names) if getattr(self, key) else []
            if beside:
                flag = f" ({self.flags[key]})" if key in self.flags else ""
                raise ValueError(
                    f"{key}{flag} brings its own {', '.join(names)}. Leave out {' and '.join(beside)}, or {key}."
                )
        return self

    @model_serializer(mode="wrap")
    def _written(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in handler(self).items() if name not in self.answered()}
