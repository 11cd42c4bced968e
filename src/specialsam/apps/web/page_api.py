"""Correct and tune, runs, the line: what the page needs beside pictures, as a part of the same API."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from starlette.exceptions import HTTPException
from starlette.responses import StreamingResponse

from specialsam.apps.line import viewing
from specialsam.apps.web.api import FAULTS, JPEG, Served, regular
from specialsam.apps.web.catalogue import gains_of
from specialsam.apps.web.guards import REPORT_POLICY
from specialsam.apps.web.messages import Correction, Gain, Id, LineEvent, LineFacts, RunList, Saved, Tuning
from specialsam.apps.web.runs import facts, page_of, runs_in, with_pictures
from specialsam.apps.web.state import Server
from specialsam.core.documents import parse_json
from specialsam.core.errors import SpecialSamError, UsageError

LIVE, NUMBERS, ROLL = "live.jpg", "live.json", "roll.html"
BOUNDARY = "specialsam-frame"
NEXT = f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\n\r\n".encode()
LOOK_EVERY = 0.1
QUIET = 5.0
"""Seconds after which a picture is sent again although it is no new one, so that a listener that left is noticed."""
MAIN = "interior"
"""Strategy of the gain that is shown, where a run measured it."""
router = APIRouter(prefix="/api/v1", responses=FAULTS)
_HTML: dict[int | str, dict[str, Any]] = {200: {"content": {"text/html": {}}}}


@router.get("/corrections", tags=["tuning"])
async def corrections(server: Served) -> Saved:
    """What the data set of corrections holds."""
    return await asyncio.to_thread(server.corrections.listed)


@router.post("/corrections", status_code=201, tags=["tuning"])
async def correct(server: Served, question: Correction) -> Saved:
    """Let corrected masks of an uploaded picture join the data set; earlier ones of the same picture go."""
    picture = server.picture(question.image)
    size = (picture.height, picture.width)
    masks = [mask.model_dump(mode="json") for mask in question.masks]
    for mask in question.masks:
        if tuple(mask.size) != size or sum(mask.counts) != size[0] * size[1]:
            raise HTTPException(422, f"expected masks of {size[0]}x{size[1]} pixels (height x width), got others")
    try:
        job = await asyncio.to_thread(server.corrections.job, picture.id, picture.path, masks)
        answer = await server.asked(picture.session, job)
        await asyncio.to_thread(server.corrections.note, job["name"], question.who, answer["files"])
        return await asyncio.to_thread(server.corrections.listed)
    except (OSError, SpecialSamError):
        raise HTTPException(422, "the folder of corrections cannot be written; see to its place") from None


@router.get("/tuning", tags=["tuning"])
async def tuning(server: Served) -> Tuning:
    """How tuning stands; once it is done, what came of it joins the models."""
    told = await asyncio.to_thread(server.tuner.told)
    if told.state == "done" and server.tuner.specialist is not None:
        await _offer(server, server.tuner.specialist)
    entry = server.catalogue.get(server.tuner.model) if server.tuner.model else None
    if entry is None or told.state != "done":
        return told
    return told.model_copy(
        update={"model": entry.id, "gain": entry.gain, "guard": entry.told["note"], "report": _report(server)}
    )


@router.post("/tuning", status_code=202, tags=["tuning"])
async def tune(server: Served) -> Tuning:
    """Start `specialize` on the data set of corrections; 429 while one is running."""
    try:
        started = await asyncio.to_thread(server.tuner.start, server.corrections.folder)
    except UsageError as error:
        raise HTTPException(422, str(error)) from None
    if not started:
        raise HTTPException(429, "tuning is running already", {"Retry-After": "30"})
    return await asyncio.to_thread(server.tuner.told)


@router.delete("/tuning", tags=["tuning"])
async def stop_tuning(server: Served) -> Tuning:
    """Stop the run that is under way; what it finished is kept."""
    await asyncio.to_thread(server.tuner.stop)
    return await asyncio.to_thread(server.tuner.told)


async def _offer(server: Server, specialist: Path) -> None:
    """Load the new specialist once and list it, with its gain."""
    place = str(specialist)
    known = next((one for one in server.catalogue.entries if one.place == place), None)
    if known is None:
        told = await server.asked("tuning", {"kind": "load", "model": place})
        known = server.catalogue.add(place, told, main_gain(gains_of(specialist.parent / "comparison.csv")))
    server.tuner.model = known.id


def main_gain(gains: list[Gain]) -> Gain | None:
    """The gain by the main strategy, or the first."""
    return next((one for one in gains if one.strategy == MAIN), gains[0] if gains else None)


def _report(server: Server) -> str | None:
    run = next((one for one in runs_in(server.runs) if one.folder == server.tuner.folder), None)
    return f"/api/v1/runs/{run.id}/report" if run is not None and "report" in run.pages() else None


@router.get("/runs", tags=["runs"])
async def runs(server: Served) -> RunList:
    """All runs in the folder of runs, the newest first."""

    def listed() -> RunList:
        return RunList(runs=[facts(run, "/api/v1/runs") for run in runs_in(server.runs)])

    return await asyncio.to_thread(listed)


@router.get("/runs/{run}/{page}", tags=["runs"], response_class=Response, responses=_HTML)
async def page(server: Served, run: Id, page: Id) -> Response:
    """A page of a run, in a sandbox: no script, nothing from anywhere."""
    return await asyncio.to_thread(lambda: _page(page_of(server.runs, run, page)))


def _page(path: Path | None) -> Response:
    content = regular(path)
    content = with_pictures(content, path.parent) if path else content
    headers = {"Content-Security-Policy": REPORT_POLICY, "X-Frame-Options": "SAMEORIGIN"}
    return Response(content, media_type="text/html; charset=utf-8", headers=headers)


@router.get("/line", tags=["line"])
async def line(server: Served, after: Annotated[int, Query(ge=0, le=2**53)] = 0) -> LineFacts:
    """How the line stands, and the events after a number."""
    folder = server.line
    if folder is None:
        return LineFacts(watched=False)
    return await asyncio.to_thread(_line, folder, after)


def _line(folder: Path, after: int) -> LineFacts:
    seen = viewing.look(folder, after)
    numbers = _numbers(folder / NUMBERS)
    at = numbers.pop("at", None)
    events = [
        LineEvent(
            seq=seq,
            snapshot=bool(one.snapshot),
            **{name: getattr(one, name) for name in LineEvent.model_fields if name not in ("seq", "snapshot")},
        )
        for seq, one in seen.events
    ]
    return LineFacts(
        watched=True,
        metres=max(seen.metres, numbers.get("metres", 0.0)),
        total=seen.total,
        age=None if at is None else max(0.0, round(time.time() - at, 1)),
        picture=(folder / LIVE).is_file(),
        roll_page=(folder / ROLL).is_file(),
        numbers=numbers,
        events=events,
        **seen.names,
    )


def _numbers(path: Path) -> dict[str, float]:
    try:
        if path.is_symlink() or path.stat().st_size > 10_000:
            return {}
        found = parse_json(path.read_text(encoding="utf-8"))
        return {str(name): float(value) for name, value in found.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


@router.get("/line/roll", tags=["line"], response_class=Response, responses=_HTML)
async def roll(server: Served) -> Response:
    """The map of the roll as the inspection wrote it at its end."""
    return await asyncio.to_thread(lambda: _page(server.line / ROLL if server.line else None))


@router.get("/line/snapshots/{seq}", tags=["line"], response_class=Response, responses=JPEG)
async def snapshot(server: Served, seq: Annotated[int, "an event's number"]) -> Response:
    """The marked picture of an event."""
    folder = server.line

    def read() -> bytes:
        return regular(viewing.snapshot_of(folder, seq) if folder is not None and 0 < seq < 2**53 else None)

    return Response(await asyncio.to_thread(read), media_type="image/jpeg")


@router.get("/line/live", tags=["line"], response_class=Response, responses=JPEG)
async def live(server: Served) -> Response:
    """The newest picture."""
    content = await asyncio.to_thread(regular, server.line / LIVE if server.line else None)
    return Response(content, media_type="image/jpeg")


@router.get("/line/stream", tags=["line"], response_class=Response, include_in_schema=False)
async def stream(server: Served) -> Response:
    """The newest picture again and again, as Motion JPEG, for as long as somebody listens."""
    if server.line is None or not (server.line / LIVE).is_file():
        raise HTTPException(404, "there is no live picture")
    if server.streams >= server.limits.streams:
        raise HTTPException(429, "too many watch already", {"Retry-After": "10"})
    return StreamingResponse(
        frames(server, server.line / LIVE), media_type=f"multipart/x-mixed-replace; boundary={BOUNDARY}"
    )


async def frames(server: Server, path: Path) -> AsyncIterator[bytes]:
    """Parts of the stream. The next picture is read only once the last one has left, so it is always the newest."""
    server.streams += 1
    seen, sent = (0, 0), -QUIET
    try:
        yield NEXT
        while not server.ending.is_set():
            try:
                stat = path.stat()
                changed = (stat.st_mtime_ns, stat.st_ino)
                if changed != seen or time.monotonic() - sent >= QUIET:
                    content = regular(path)
                    yield content + b"\r\n" + NEXT  # at once: browsers show a picture when they see the next begin
                    seen, sent = changed, time.monotonic()
            except (OSError, HTTPException):
                pass  # it is being replaced, or the folder has gone
            await asyncio.sleep(LOOK_EVERY)
    finally:
        server.streams -= 1
