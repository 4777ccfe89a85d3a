"""Checks of options: one clear error that names the option, what was expected and what came. Pure.

The bounds of an option are data (`Whole`, `Seconds`), so that the checks, the tables of the docs and the JSON schema have
one source.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from nova.errors import ConfigError

__all__ = ["Bounds", "OptionChecks", "Seconds", "Share", "Whole"]


@dataclass(frozen=True, slots=True)
class Whole:
    """An integer from `least` to `most`; None = no upper bound.

    Attributes:
        besides: one more that is legal, outside the bounds.
        hint: what a bound or `besides` means, at the end of the error.
    """

    least: int
    most: int | None = None
    besides: int | None = None
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Seconds:
    """A duration from `least` to `most` seconds; None = no upper bound."""

    least: float
    most: float | None = None


@dataclass(frozen=True, slots=True)
class Share:
    """A number from 0 to 1."""

    least: float = 0.0
    most: float = 1.0


Bounds: TypeAlias = Mapping[str, Whole | Seconds | Share]
"""The bounds of options by name. An option that is None has a default of its own and is not looked at."""


@dataclass(frozen=True, slots=True)
class OptionChecks:
    """The checks of one driver; `option` is the function that takes its options. Each raises `ConfigError`."""

    option: str

    def bounds(self, found: object, bounds: Bounds) -> None:
        """Every attribute of `found` that has bounds lies between them."""
        for name, bound in bounds.items():
            value = getattr(found, name)
            if value is None:
                continue
            if isinstance(bound, Seconds):
                self.seconds(name, value, bound.least, bound.most)
            elif isinstance(bound, Share):
                self.share(name, value)
            elif bound.besides is None or value != bound.besides:
                self.integer(name, value, bound.least, bound.most, bound.hint)

    def integer(self, name: str, value: Any, least: int, most: int | None, hint: str = "") -> None:
        """An integer between bounds."""
        is_other = not isinstance(value, int) or isinstance(value, bool)
        if is_other or value < least or (most is not None and value > most):
            bounds = f"from {least} to {most}" if most is not None else f"of at least {least}"
            raise ConfigError(f"{self.option}({name}): expected an integer {bounds}, got {value!r}{hint}")

    def seconds(self, name: str, value: float, least: float, most: float | None) -> None:
        """Seconds between bounds."""
        if not least <= value or (most is not None and value > most):
            bounds = f"{least:g} to {most:.10g}" if most is not None else f"at least {least:g}"
            raise ConfigError(f"{self.option}({name}): expected {bounds} seconds, got {value:.10g}")

    def share(self, name: str, value: object) -> None:
        """A number from 0 to 1."""
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1:
            raise ConfigError(f"{self.option}({name}): expected a number from 0 to 1, got {value!r}")

    def flag(self, name: str, value: object) -> None:
        """True or false."""
        if not isinstance(value, bool):
            raise ConfigError(f"{self.option}({name}): expected true or false, got {value!r}")

    def text(self, name: str, value: object) -> None:
        """Text that is not empty, or None; a password is not shown."""
        if value is not None and (not isinstance(value, str) or not value):
            shown = "" if name.endswith(("password", "secret_key")) else f", got {value!r}"
            raise ConfigError(f"{self.option}({name}): expected text that is not empty{shown}")

    def secret(self, name: str, value: object, file: object) -> None:
        """A secret, said as itself or by the file it is in, or not at all."""
        self.text(name, value)
        self.text(f"{name}_file", file)
        if value is not None and file is not None:
            raise ConfigError(f"{self.option}: {name} and {name}_file are both given; keep one")

    def needs_tls(self, found: Any, *names: str) -> None:
        """What is about certificates comes with TLS."""
        for name in names:
            if getattr(found, name) is not None and not found.tls:
                raise ConfigError(f"{self.option}({name}): needs tls=True")

    def needs_key_file(self, found: Any) -> None:
        """The password of a key, or the file it is in, comes with the key's file."""
        for name in ("key_password", "key_password_file"):
            if getattr(found, name) is not None and found.key_file is None:
                raise ConfigError(f"{self.option}({name}): needs key_file")
