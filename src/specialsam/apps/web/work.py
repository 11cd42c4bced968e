"""What the model's process does with a job: plain JSON in, plain JSON out; an error is an answer.

A job is {"kind": ..., fields}. Pictures are named by the server's own keys and lie in the server's own files; no text
of a client is ever a path. What is kept between jobs (models, pixels, embeddings) is bounded and may be lost.
"""

from __future__ import annotations

import time
from base64 import b64encode
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import cv2
import numpy as np

from specialsam.apps.answers import FoundObject
from specialsam.apps.asked import Asked
from specialsam.apps.session import Asking, Session, answer_asked, find_in, open_session
from specialsam.apps.web.limits import Limits
from specialsam.core.errors import DataError, SpecialSamError, UsageError
from specialsam.core.geometry import BoolArray, ImageArray
from specialsam.core.masks import from_rles
from specialsam.core.types import Embedding
from specialsam.core.windows import Window
from specialsam.data.headers import image_size
from specialsam.data.images import read_image, write_png
from specialsam.models.segmenter import Segmenter

MODELS = 3
"""Models that are in memory at once."""
LONGEST = 2048
"""Pixels of the longer side of a picture that is shown."""
Held = TypeVar("Held")
Answer = dict[str, Any]


class Kept(Generic[Held]):
    """Values by key, the least used go first once their bytes are above `limit`; the newest always stays."""

    def __init__(self, limit: float, weigh: Callable[[Held], float]) -> None:
        self.limit, self.weigh, self.total = limit, weigh, 0.0
        self.values: OrderedDict[tuple[str, str], Held] = OrderedDict()

    def get(self, key: tuple[str, str]) -> Held | None:
        """The value, now the most used; None where there is none."""
        if key in self.values:
            self.values.move_to_end(key)
        return self.values.get(key)

    def put(self, key: tuple[str, str], value: Held) -> None:
        """Keep a value; others may go."""
        self.drop(key)
        self.values[key] = value
        self.total += self.weigh(value)
        while self.total > self.limit and len(self.values) > 1:
            self.drop(next(iter(self.values)))

    def drop(self, key: tuple[str, str]) -> None:
        """Let go of a value, if it is there."""
        if key in self.values:
            self.total -= self.weigh(self.values.pop(key))

    def drop_picture(self, name: str) -> None:
        """Let go of everything of a picture."""
        for key in [key for key in self.values if key[0] == name]:
            self.drop(key)


class Work:
    """The models and what is kept of pictures; `do` answers one job."""

    def __init__(self, limits: Limits, device: str, trust_base: bool) -> None:
        self.limits, self.device, self.trust_base = limits, device, trust_base
        self.models: OrderedDict[str, Session] = OrderedDict()
        self.pixels: Kept[ImageArray] = Kept(limits.kept_mb * 1e6, lambda image: image.nbytes)
        self.embeddings: Kept[Embedding] = Kept(
            limits.kept_mb * 1e6, lambda one: one.tensor.element_size() * one.tensor.nelement()
        )

    def do(self, job: Mapping[str, Any]) -> Answer:
        """The answer to a job; {"error", "status"} where it fails in a way that somebody can mend."""
        kinds = {"load": self.load, "encode": self.encode, "ask": self.ask, "find": self.find}
        kinds |= {"keep": self.keep, "show": self.show}
        for name in job.get("forget", ()):
            self.pixels.drop_picture(name)
            self.embeddings.drop_picture(name)
        began = time.perf_counter()
        try:
            answer = kinds[job["kind"]](job)
        except (SpecialSamError, MemoryError, RuntimeError) as error:
            answer = failure(error, [job.get("path", "")])
        return answer | {"seconds": round(time.perf_counter() - began, 4)}

    def session(self, model: str) -> Session:
        """The model at a place that the server names, loaded when it is first asked for."""
        if model not in self.models:
            self.models[model] = _opened(model, self.device, self.trust_base)
            if len(self.models) > MODELS:
                self.models.popitem(last=False)
        self.models.move_to_end(model)
        return self.models[model]

    def load(self, job: Mapping[str, Any]) -> Answer:
        """What is known of a model."""
        session = self.session(job["model"])
        card = session.card
        return {
            "name": card.name if card else session.segmenter.name,
            "specialist": card is not None,
            "base": session.base.name if session.base else None,
            "finder": session.parts.finder is not None,
            "note": card.note if card else "",
        }

    def encode(self, job: Mapping[str, Any]) -> Answer:
        """Look at pictures that came together, and encode all that can be read in one pass; an answer each."""
        answers: list[Answer] = []
        images: list[tuple[str, ImageArray]] = []
        segmenter = self.session(job["model"]).segmenter
        for item in job["items"]:
            try:
                image = self.read(item["key"], item["path"])
                images.append((item["key"], image))
                answers.append({"height": image.shape[0], "width": image.shape[1]})
            except (SpecialSamError, MemoryError) as error:
                answers.append(failure(error, [item["path"]]))
        for (key, _), embedding in zip(images, segmenter.encode_batch([image for _, image in images]), strict=True):
            self.embeddings.put((key, segmenter.encoder_id), embedding)
        return {"answers": answers, "batch": len(images)}

    def read(self, key: str, path: str) -> ImageArray:
        """The pixels of a picture, from memory or from its file; its size is looked at before it is decoded."""
        known = self.pixels.get((key, ""))
        if known is None:
            height, width = image_size(Path(path))
            if height * width > self.limits.megapixels * 1e6:
                limit = f"expected at most {self.limits.megapixels:g} megapixels"
                raise TooLarge(f"{limit}, got {width}x{height} pixels; scale it down")
            known = read_image(Path(path), pixel_limit=int(self.limits.megapixels * 1e6))
            self.pixels.put((key, ""), known)
        return known

    def embed(self, key: str) -> Callable[[Segmenter, ImageArray, Window], Embedding]:
        """Embeddings of one picture; that of the whole is kept."""

        def made(segmenter: Segmenter, image: ImageArray, window: Window) -> Embedding:
            if window.size != image.shape[:2]:
                return segmenter.encode(np.ascontiguousarray(image[window.slices]))
            known = self.embeddings.get((key, segmenter.encoder_id))
            if known is None:
                known = segmenter.encode(image)
                self.embeddings.put((key, segmenter.encoder_id), known)
            return known

        return made

    def ask(self, job: Mapping[str, Any]) -> Answer:
        """Objects by prompts: an object each, with the place of its prompt, and the base's beside it."""
        image = self.read(job["key"], job["path"])
        asked = [_asked(prompt, place).in_pixels(*image.shape[:2]) for place, prompt in enumerate(job["prompts"])]
        how = Asking(zoom=job["zoom"])
        return _told(*answer_asked(self.session(job["model"]), image, asked, how, self.embed(job["key"])))

    def find(self, job: Mapping[str, Any]) -> Answer:
        """Objects without a prompt, and the base's beside them."""
        image = self.read(job["key"], job["path"])
        how = Asking(zoom=job["zoom"], most=job["most"], threshold=job["threshold"])
        return _told(*find_in(self.session(job["model"]), image, how, self.embed(job["key"])))

    def show(self, job: Mapping[str, Any]) -> Answer:
        """The picture as a browser can show it: JPEG in base64, no larger than is seen."""
        image = self.read(job["key"], job["path"])
        scale = min(1.0, LONGEST / max(image.shape[:2]))
        size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
        shown = cv2.cvtColor(cv2.resize(image, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2BGR)
        return {"jpeg": b64encode(cv2.imencode(".jpg", shown)[1].tobytes()).decode()}

    def keep(self, job: Mapping[str, Any]) -> Answer:
        """Write corrected masks beside a copy of their picture, a file an object; what stood there goes."""
        image, folder, name = self.read(job["key"], job["path"]), Path(job["folder"]), job["name"]
        masks = from_rles(job["masks"], image.shape[0], image.shape[1])
        filled = [mask for mask in masks if mask.any()]
        if len(filled) != len(masks) or not filled:
            raise DataError("expected masks with at least one pixel each, got an empty one")
        own = _apart(filled)
        files = [f"{name}.png"] if len(own) == 1 else [f"{name}_{place}.png" for place in range(1, len(own) + 1)]
        for file, mask in zip(files, own, strict=True):
            write_png(folder / "masks" / file, mask)
        for old in (folder / "masks").glob(f"{name}*.png"):
            if old.name not in files and not old.is_symlink():
                old.unlink()
        write_png(folder / "images" / f"{name}.png", image)
        return {"files": files}


def _apart(masks: Sequence[BoolArray]) -> list[BoolArray]:
    """The masks without shared pixels, which are the smaller object's; DataError where nothing is left of one."""
    out = list(masks)
    taken = np.zeros(masks[0].shape, np.bool_)
    for place in sorted(range(len(masks)), key=lambda place: int(masks[place].sum())):
        out[place] = np.asarray(masks[place] & ~taken, np.bool_)
        taken |= masks[place]
        if not out[place].any():
            raise DataError(
                f"expected objects with pixels of their own, got object {place + 1} wholly under others; leave it out"
            )
    return out


class TooLarge(DataError):
    """More pixels than the server takes."""


def failure(error: BaseException, paths: Sequence[str]) -> Answer:
    """An error as an answer: one line without any path of this machine, and its HTTP status."""
    if isinstance(error, MemoryError) or not isinstance(error, SpecialSamError):
        return {
            "error": "the model could not work on this picture: it needs more memory than is allowed",
            "status": 422,
        }
    text = str(error)
    for path in paths:
        text = text.replace(f"{path}: ", "").replace(path, "the picture") if path else text
    return {"error": text, "status": 413 if isinstance(error, TooLarge) else 422}


def _opened(model: str, device: str, trust_base: bool) -> Session:
    from specialsam.models.specialist import is_specialist

    try:
        return open_session(model, with_base=is_specialist(Path(model)), device=device, trust_base=trust_base)
    except UsageError:
        return open_session(model, device=device, trust_base=trust_base)


def _asked(prompt: Mapping[str, Any], place: int) -> Asked:
    points, box = prompt.get("points") or None, prompt.get("box")
    return Asked(
        "picture",
        None if points is None else np.array(points, np.float32),
        None if points is None else np.array(prompt["labels"] or [1] * len(points), np.int64),
        None if box is None else tuple(box),
        source=str(place),
    )


def _told(objects: Sequence[FoundObject], beside: Sequence[FoundObject]) -> Answer:
    return {"objects": [_plain(one) for one in objects], "beside": [_plain(one) for one in beside]}


def _plain(one: FoundObject) -> Answer:
    prompt = int(one.source) if one.source else None
    return {"rle": one.rle, "box": list(one.box), "score": min(1.0, max(0.0, one.score)), "prompt": prompt}
