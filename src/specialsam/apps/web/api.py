"""The JSON API: pictures are uploaded once, then asked about; models are listed and chosen."""

from __future__ import annotations

import asyncio
from base64 import b64decode
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from starlette.exceptions import HTTPException

from specialsam import __version__
from specialsam.apps.line.sinks.prometheus import text_of
from specialsam.apps.web.messages import (
    Answered,
    Fault,
    FindQuestion,
    Health,
    Id,
    Models,
    Ready,
    SegmentQuestion,
    Uploaded,
    UseQuestion,
)
from specialsam.apps.web.state import Server
from specialsam.apps.web.uploads import Crowded, Picture, Visit

PICTURE_TYPES = ("application/octet-stream", "image/jpeg", "image/png", "image/tiff", "image/webp", "image/bmp")
"""What an upload may call itself; what it is, its content says. Forms are refused: a picture is the whole body."""
TYPES_READ = (*PICTURE_TYPES, "image/gif", "image/heic", "image/heif", "image/x-portable-anymap", "")
_FAULTS = {
    400: "the request cannot be read",
    401: "the server's token is missing",
    403: "the request comes from another site or to another name",
    404: "there is nothing of that id, or no longer",
    408: "the request came in too slowly",
    413: "too many bytes or pixels",
    415: "a picture is expected as the body itself",
    422: "a field, or the picture, is not as it should be",
    429: "too much at once; see Retry-After",
    503: "the model is starting",
}
FAULTS: dict[int | str, dict[str, Any]] = {
    status: {"model": Fault, "description": text} for status, text in _FAULTS.items()
}


JPEG: dict[int | str, dict[str, Any]] = {200: {"content": {"image/jpeg": {}}}}


def server_of(request: Request) -> Server:
    """The server that a request is asked of."""
    found: Server = request.app.state.server
    return found


Served = Annotated[Server, Depends(server_of)]
router = APIRouter(prefix="/api/v1", responses=FAULTS)


@router.get("/health", tags=["server"])
async def health() -> Health:
    """The server is there."""
    return Health(version=__version__)


@router.get("/ready", tags=["server"])
async def ready(server: Served) -> Ready:
    """The models are loaded; 503 while they are not."""
    if not server.desk.ready.is_set():
        raise HTTPException(503, "the model is starting", {"Retry-After": "2"})
    return Ready(ready=True)


@router.get("/metrics", tags=["server"], response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(server: Served) -> Response:
    """Numbers in Prometheus' text format."""
    return Response(text_of(server.numbers()), media_type="text/plain; version=0.0.4; charset=utf-8")


@router.get("/models", tags=["models"])
async def models(server: Served) -> Models:
    """The models that may be asked for, and which one is in use."""
    return Models(models=server.catalogue.listed())


@router.post("/models/use", tags=["models"])
async def use(server: Served, question: UseQuestion) -> Models:
    """Let a model answer from now on wherever none is named."""
    server.use(question.model)
    return Models(models=server.catalogue.listed())


_BODY = {
    "requestBody": {
        "required": True,
        "content": {kind: {"schema": {"type": "string", "format": "binary"}} for kind in PICTURE_TYPES},
    }
}


@router.post("/images", status_code=201, tags=["pictures"], openapi_extra=_BODY)
async def upload(
    request: Request, server: Served, session: Annotated[Id | None, Query(description="begun if left out")] = None
) -> Uploaded:
    """Upload a picture, the request's whole body, to be read and encoded once."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in TYPES_READ:
        raise HTTPException(415, f"expected a picture as the request's body ({', '.join(PICTURE_TYPES)})")
    content = await request.body()
    if not content:
        raise HTTPException(422, "expected a picture as the request's body, got nothing")
    visit, begun = _visit(server, session)
    picture = server.visits.place(visit)
    try:
        answer = await _encoded(server, picture, content)
    except HTTPException:
        picture.path.unlink(missing_ok=True)
        if begun:
            server.visits.end(visit.id)
        raise
    if not server.visits.add(picture):
        picture.path.unlink(missing_ok=True)
        raise HTTPException(404, "the session ended meanwhile")
    return Uploaded(
        image=picture.id,
        session=visit.id,
        width=picture.width,
        height=picture.height,
        seconds=answer["seconds"],
        batch=answer["batch"],
        expires_in=60 * server.limits.minutes,
    )


def _visit(server: Server, session: str | None) -> tuple[Visit, bool]:
    """The session of that id, or a new one; and whether it is new."""
    if session is not None:
        visit = server.visits.get(session)
        if visit is None:
            raise HTTPException(404, "expected a session that is still here; leave it out to begin one")
        return visit, False
    try:
        return server.visits.begin(), True
    except Crowded:
        text = f"all {server.limits.sessions} sessions are taken; try again later"
        raise HTTPException(429, text, {"Retry-After": "30"}) from None


async def _encoded(server: Server, picture: Picture, content: bytes) -> dict[str, Any]:
    try:
        await asyncio.to_thread(picture.path.write_bytes, content)
    except OSError:
        raise HTTPException(429, "there is no room for another picture now", {"Retry-After": "30"}) from None
    item = {"key": picture.id, "path": str(picture.path)}
    job = {"kind": "encode", "items": [item], "model": server.model(None).place}
    answer = await server.asked(picture.session, job)
    picture.height, picture.width = answer["height"], answer["width"]
    return answer


@router.get("/images/{image}", tags=["pictures"], response_class=Response, responses=JPEG)
async def show(server: Served, image: Id) -> Response:
    """An uploaded picture as any browser can show it, whatever its format and depth."""
    picture = server.picture(image)
    answer = await server.asked(picture.session, {"kind": "show", "key": picture.id, "path": str(picture.path)})
    return Response(b64decode(answer["jpeg"]), media_type="image/jpeg")


@router.delete("/sessions/{session}", status_code=204, tags=["pictures"])
async def end_session(server: Served, session: Id) -> Response:
    """End a session; its pictures are deleted now."""
    if not server.visits.end(session):
        raise HTTPException(404, "expected a session that is still here")
    return Response(status_code=204)


@router.post("/segment", tags=["pictures"])
async def segment(server: Served, question: SegmentQuestion) -> Answered:
    """The objects that points and boxes ask for, in an uploaded picture."""
    prompts = [prompt.model_dump() for prompt in question.prompts]
    return await _answered(server, question, {"kind": "ask", "prompts": prompts})


@router.post("/find", tags=["pictures"])
async def find(server: Served, question: FindQuestion) -> Answered:
    """All that the model finds without a prompt, in an uploaded picture."""
    return await _answered(server, question, {"kind": "find", "most": question.most, "threshold": question.threshold})


async def _answered(server: Server, question: SegmentQuestion | FindQuestion, job: dict[str, Any]) -> Answered:
    picture, entry = server.picture(question.image), server.model(question.model)
    where = {"key": picture.id, "path": str(picture.path), "model": entry.place, "zoom": question.zoom}
    answer = await server.asked(picture.session, {**job, **where})
    names = ("objects", "beside", "seconds")
    return Answered(model=entry.id, **{name: answer[name] for name in names})


def regular(path: Path | None) -> bytes:
    """What a file holds that the server itself has listed; 404 where it is none now."""
    try:
        if path is None or path.is_symlink() or not path.is_file():
            raise HTTPException(404, "there is nothing of that name, or no longer")
        return path.read_bytes()
    except OSError:
        raise HTTPException(404, "there is nothing of that name, or no longer") from None
