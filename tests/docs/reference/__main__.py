"""`python -m tests.docs.reference` writes what the tests compare."""

from __future__ import annotations

from tests.docs.reference.files import PAGE, SCHEMA, page, schema_text

if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    SCHEMA.write_text(schema_text(), encoding="utf-8")
