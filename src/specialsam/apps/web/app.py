"""The application: the API and the page behind their guards, and every fault as one line of JSON."""

from __future__ import annotations

import asyncio
import mimetypes
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from importlib.resources import files

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from specialsam import __version__
from specialsam.apps.web import api, page_api
from specialsam.apps.web.guards import Access, Guard
from specialsam.apps.web.state import Server
from specialsam.core.console import complain
from specialsam.core.names import printable

SWEEP_EVERY = 1.0
"""Seconds between two looks for sessions that have expired."""
STATIC = "static"
NAMED = 5
"""Wrong fields that an answer names."""
_TYPES = {".js": "text/javascript", ".css": "text/css", ".html": "text/html", ".svg": "image/svg+xml"}


def create_app(server: Server, access: Access | None = None) -> Guard:
    """The whole application of a server whose desk has been started."""
    app = FastAPI(
        title="specialsam",
        version=__version__,
        description="Upload a picture once, then ask about it: points, boxes, or whatever the model finds by itself.",
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/v1/openapi.json",
        redirect_slashes=False,
        lifespan=_sweeping,
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.server = server
    app.include_router(api.router)
    app.include_router(page_api.router)
    shown = static_files()
    for name, content in shown.items():
        address = "/" if name == "index.html" else f"/static/{name}"
        app.add_api_route(address, _file(name, content), methods=["GET"], include_in_schema=False)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _wrong)
    app.add_exception_handler(Exception, _unexpected)
    guard = Guard(app, access or Access(), server.limits)

    def counted(status: int) -> None:
        server.answers[status] += 1

    guard.counted = counted
    return guard


def static_files() -> Mapping[str, bytes]:
    """The page's own files by name, read once: no request ever opens a file of that folder."""
    folder = files("specialsam.apps.web").joinpath(STATIC)
    return {one.name: one.read_bytes() for one in folder.iterdir() if one.is_file()}


def _file(name: str, content: bytes):  # type: ignore[no-untyped-def]  # FastAPI reads the inner function's own
    kind = _TYPES.get(f".{name.rpartition('.')[2]}") or mimetypes.guess_type(name)[0] or "application/octet-stream"

    async def served() -> Response:
        return Response(content, media_type=f"{kind}; charset=utf-8" if kind.startswith("text/") else kind)

    return served


@asynccontextmanager
async def _sweeping(app: FastAPI) -> AsyncIterator[None]:
    async def sweep() -> None:
        while True:
            await asyncio.sleep(SWEEP_EVERY)
            app.state.server.visits.sweep()

    task = asyncio.create_task(sweep())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _fault(error.status_code, str(error.detail), error.headers)


async def _wrong(request: Request, error: Exception) -> Response:
    """What is wrong with which field; never what came in, which may hold anything."""
    assert isinstance(error, RequestValidationError)
    wrong = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()[:NAMED]]
    return _fault(422, "; ".join(wrong)[:1000])


async def _unexpected(request: Request, error: Exception) -> Response:
    complain(f"unexpected {type(error).__name__} at {request.method} {printable(request.url.path)[:200]}")
    return _fault(500, "something unexpected happened; the server's console names it")


def _fault(status: int, text: str, headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse({"error": printable(text)}, status, headers=dict(headers or {}))
