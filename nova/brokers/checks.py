"""Checks of a driver's options: one clear error that names the option, what was expected and what came. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from nova.errors import ConfigError

__all__ = ["OptionChecks"]


@dataclass(frozen=True, slots=True)
class OptionChecks:
    """The checks of one driver; `option` is the function that takes its options. Each raises `ConfigError`."""

    option: str

    def integer(self, name: str, value: object, least: int, most: int, hint: str = "") -> None:
        """An integer between bounds."""
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise ConfigError(f"{self.option}({name}): expected an integer from {least} to {most}{hint}, got {value!r}")

    def seconds(self, name: str, value: float, least: float, most: float) -> None:
        """Seconds between bounds."""
        if not least <= value <= most:
            raise ConfigError(f"{self.option}({name}): expected {least:g} to {most:g} seconds, got {value:g}")

    def flag(self, name: str, value: object) -> None:
        """True or false."""
        if not isinstance(value, bool):
            raise ConfigError(f"{self.option}({name}): expected true or false, got {value!r}")

    def text(self, name: str, value: object) -> None:
        """Text that is not empty, or None; a password is not shown."""
        if value is not None and (not isinstance(value, str) or not value):
            shown = "" if "password" in name else f", got {value!r}"
            raise ConfigError(f"{self.option}({name}): expected text that is not empty{shown}")
