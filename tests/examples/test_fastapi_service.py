"""The FastAPI example while its broker is away: each request is answered, and says to try again."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx

from examples.fastapi_service import create_app


def test_a_broker_that_is_away_is_a_503_of_every_request(tmp_path: Path) -> None:
    file = tmp_path / "nova.db"
    service = create_app(f"sqlite:///{file}?busy_timeout=0.1")

    async def ask() -> list[int]:
        web = httpx.AsyncClient(transport=httpx.ASGITransport(service, raise_app_exceptions=False), base_url="http://x")
        async with service.router.lifespan_context(service), web:
            order = {"number": 1, "email": "a@b.c"}
            answers = [await web.post("/orders", json=order), await web.get("/queue")]
            file.rename(tmp_path / "moved.db")
            answers += [await web.post("/orders", json=order), await web.get("/queue")]
            return [answer.status_code for answer in answers]

    assert asyncio.run(ask()) == [202, 200, 503, 503]
