"""The files that are written from the code, as they should be."""

from __future__ import annotations

import json
from pathlib import Path

from tests.docs.reference.drivers import capabilities_page
from tests.docs.reference.schema import schema
from tests.docs.reference.tables import fill
from tests.docs.reference.topology import topology_page

__all__ = ["PAGE", "SCHEMA", "page", "schema_text", "written"]

_DOCS = Path(__file__).parents[3] / "docs"
PAGE = _DOCS / "configuration.md"
SCHEMA = _DOCS / "nova.schema.json"


def page() -> str:
    """docs/configuration.md with its tables written anew."""
    return fill(PAGE.read_text(encoding="utf-8"))


def schema_text() -> str:
    """The text of docs/nova.schema.json."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def written() -> dict[Path, str]:
    """Every file that is written from the code, and its text."""
    return {
        PAGE: page(),
        SCHEMA: schema_text(),
        _DOCS / "capabilities.md": capabilities_page(),
        _DOCS / "topology.md": topology_page(),
    }
