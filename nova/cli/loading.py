"""`module:object` to the object, with one clear error if there is none. Runs the user's module: call it once, early."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
import traceback

from nova.errors import ConfigError, NovaError

__all__ = ["load", "split"]


def split(target: str) -> tuple[str, str]:
    """The names of the module and of the object in it.

    Raises:
        ConfigError: not of this form.
    """
    module, _, name = target.partition(":")
    parts = [*module.split("."), *name.split(".")]
    if not all(part.isidentifier() for part in parts) or module.endswith(".py"):
        raise ConfigError(f"worker: expected MODULE:OBJECT, such as app:q for q of app.py here, got {target!r}")
    return module, name


def load(target: str) -> object:
    """Import the module, looked for in the current directory first, and find the object.

    Raises:
        ConfigError: there is no such module or object, or importing it failed; the message says where.
    """
    module_name, name = split(target)
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found: object = importlib.import_module(module_name)
    except ConfigError as exc:
        raise ConfigError(f"worker: importing {module_name!r}: {exc}") from exc
    except NovaError:
        raise  # a module that reaches for its broker while it is imported, which is not there
    except (Exception, SystemExit) as exc:
        raise ConfigError(f"worker: cannot import {module_name!r}: {type(exc).__name__}: {exc}{_where(exc)}") from exc
    for part in name.split("."):
        if not hasattr(found, part):
            near = difflib.get_close_matches(part, dir(found), n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"worker: {module_name!r} has no {part!r}{hint}")
        found = getattr(found, part)
    return found


def _where(exc: BaseException) -> str:
    """The place in a file of this directory, if it came to one."""
    if isinstance(exc, SyntaxError):
        return ""  # says it itself
    own = [
        frame for frame in traceback.extract_tb(exc.__traceback__) if frame.filename.startswith(os.getcwd() + os.sep)
    ]
    return f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""
