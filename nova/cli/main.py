"""The entry point `nova`: one clear line if the extra `cli` is missing, else the commands."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> int:
    """Run the command of `sys.argv`; returns its exit code, as `nova.cli.outcome` names them."""
    try:
        from nova.cli.app import run  # not above: it needs the extra
    except ImportError as exc:
        package = (exc.name or "nova").split(".")[0]
        if package == "nova":
            raise
        sys.stderr.write(f"nova: the package {package!r} is missing; pip install 'nova-taskqueue[cli]'\n")
        return 2
    return run()


if __name__ == "__main__":
    sys.exit(main())
