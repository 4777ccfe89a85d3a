"""What a process holds in memory, and what a directory holds on disk."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["on_disk", "resident"]


def resident(pid: int) -> int:
    """Bytes of memory a process has."""
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def on_disk(directory: Path) -> int:
    """Bytes that the files below a directory take up; those that go away meanwhile count for nothing."""
    size = 0
    for file in directory.rglob("*"):
        try:
            size += file.stat().st_blocks * 512
        except FileNotFoundError:
            continue
    return size
