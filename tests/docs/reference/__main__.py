"""`python -m tests.docs.reference` writes what the tests compare."""

from __future__ import annotations

from tests.docs.reference.files import written

if __name__ == "__main__":
    for file, text in written().items():
        file.write_text(text, encoding="utf-8")
