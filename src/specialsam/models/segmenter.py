"""The border between arrays and tensors: images in, embeddings out; embeddings and prompts in, predictions out.

A `Segmenter` holds no per-image state, so threads and a server can share one. Everything that it takes and gives is in
original-image pixels; `Geometry` alone converts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from specialsam.core.errors import DataError, ModelError, UsageError
from specialsam.core.geometry import Geometry, ImageArray
from specialsam.core.packing import packed
from specialsam.core.types import Embedding, Prediction, Prompts, joined
from specialsam.models import levels
from specialsam.models.decode import decode_with_presence, dynamic_single, embed_prompts, is_dynamic
from specialsam.models.vit import FastViT, is_vit

PREPROCESSING = "longest-side-pil-bilinear-1"
"""Version of SAM's way from image to encoder input."""
PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)


@dataclass(frozen=True)
class Preprocessing:
    """The way from image to encoder input; its `version` is part of every embedding's key."""

    version: str = PREPROCESSING
    stretched: bool = False
    mean: tuple[float, float, float] = PIXEL_MEAN
    std: tuple[float, float, float] = PIXEL_STD


HALF = (127.5, 127.5, 127.5)
FAMILIES = {
    "sam2": Preprocessing("square-torch-bilinear-1", True),
    "sam3_tracker": Preprocessing("square-torch-bilinear-half-1", True, HALF, HALF),
}
"""By transformers' `model_type`, those whose way is not SAM's."""
DECODE_CHUNK = 64
"""Objects decoded at once by `Segmenter.decode`: bounds its memory, whatever the number of objects."""
CPU_CHUNK, CPU_BYTES = 32, 16 * 2**20
"""On a CPU at most so many, whose image features take at most so many bytes: more of them leave its caches."""
_Answer = tuple[Tensor, Tensor, Tensor | None]
"""Logits (N, C, L, L), scores (N, C), and logits (N,) that each object is there, where the model says so."""
SINGLE, THREE, ALL = slice(0, 1), slice(1, 4), slice(0, 4)
"""Which of the decoder's four masks to answer with."""


@dataclass(frozen=True)
class Backend:
    """Another way to run the encoder (`models.backends`): pixels (B, 3, S, S) to embeddings (B, D, h, w).

    `arithmetic` is "" where it answers as torch in fp32 does but for rounding, else what it computes in.
    """

    name: str
    arithmetic: str
    run: Callable[[Tensor], Tensor] = field(repr=False, compare=False)


@dataclass(frozen=True)
class Segmenter:
    """A SAM with its frames: `sam` is a `models.sam.Sam` or one of transformers' models, `side` its input side."""

    name: str
    sam: nn.Module
    side: int
    source: str = ""
    backend: Backend | None = None

    @cached_property
    def encoder_id(self) -> str:
        """Hash of the encoder's weights, buffers and preprocessing, and its arithmetic: who made an embedding."""
        own = fingerprint(self.encoder, self.preprocessing.version, str(self.side))[:16]
        return f"{own}-{self.backend.arithmetic}" if self.backend and self.backend.arithmetic else own

    @cached_property
    def decoder_id(self) -> str:
        """Hash of everything that is not the encoder: prompt encoder, mask decoder and positional encoding."""
        sam: Any = self.sam
        return fingerprint(nn.ModuleList([sam.prompt_encoder, sam.mask_decoder, sam.shared_image_embedding]))[:16]

    def forget_ids(self) -> None:
        """Make `encoder_id` and `decoder_id` anew when they are asked for next: weights were changed in place."""
        for name in ("encoder_id", "decoder_id", "prepared"):
            self.__dict__.pop(name, None)

    @property
    def encoder(self) -> nn.Module:
        encoder: nn.Module = self.sam.vision_encoder  # type: ignore[assignment]
        return encoder

    @property
    def preprocessing(self) -> Preprocessing:
        """How this model sees images."""
        config: Any = self.sam.config
        return FAMILIES.get(config.model_type, Preprocessing())

    def geometry(self, size: Sequence[int]) -> Geometry:
        """Frames of an image of `size` (height, width, ...) for this model."""
        config: Any = self.sam.config
        return Geometry(
            size[0], size[1], self.side, config.prompt_encoder_config.patch_size, self.preprocessing.stretched
        )

    @property
    def embedding_shape(self) -> tuple[int, int, int]:
        """(C, h, w) of this model's embeddings, finer levels within C."""
        config: Any = self.sam.config
        cells = self.side // int(config.prompt_encoder_config.patch_size)
        return levels.channels(self.sam), cells, cells

    @property
    def device(self) -> torch.device:
        return next(self.sam.parameters()).device

    def to(self, device: torch.device | str) -> Segmenter:
        """The same segmenter on a device: itself where it is there, else a copy, since others may share its encoder.

        Raises UsageError in one line for a device that this machine has not.
        """
        place = usable_device(device)
        if place == self.device:
            return self
        return replace(self, sam=deepcopy(self.sam).to(place), backend=None)

    def pixels(self, image: ImageArray) -> Tensor:
        """Encoder input float32 (3, side, side) of one image: scaled, normalised, zeros right and below."""
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise DataError(f"expected a uint8 (H, W, 3) image, got {image.dtype} {image.shape}")
        small = torch.from_numpy(np.array(self.geometry(image.shape).image_to_model(image))).permute(2, 0, 1).float()
        out = torch.zeros(3, self.side, self.side)
        way = self.preprocessing
        mean, std = torch.tensor(way.mean)[:, None, None], torch.tensor(way.std)[:, None, None]
        out[:, : small.shape[1], : small.shape[2]] = (small - mean) / std
        return out

    def encode_pixels(self, pixels: Tensor) -> Tensor:
        """Embeddings float32 (B, C, h, w) of encoder inputs (B, 3, side, side); gradients flow if they are enabled."""
        pixels = pixels.to(self.device)
        learns = pixels.requires_grad or any(weight.requires_grad for weight in self.encoder.parameters())
        if self.backend is not None and not (learns and torch.is_grad_enabled()):
            return self.backend.run(pixels).float()
        if is_vit(self.encoder) and not learns:
            return self._prepared_for(pixels.device)(pixels)
        return encoded(self.encoder, pixels).float()

    def _prepared_for(self, device: torch.device) -> FastViT:
        """The frozen ViT prepared for inference on the device where its weights are at present."""
        known: tuple[torch.device, FastViT] | None = self.__dict__.get("prepared")
        if known is None or known[0] != device:
            known = self.__dict__["prepared"] = (device, FastViT(self.encoder))
        return known[1]

    def encode_batch(self, images: Sequence[ImageArray]) -> list[Embedding]:
        """Encode images (uint8 (H, W, 3), sizes may differ) in one pass of the encoder, which stays in eval mode."""
        if not images:
            return []
        self.encoder.eval()
        with torch.no_grad():
            tensors = self.encode_pixels(torch.stack([self.pixels(image) for image in images])).cpu()
        return [Embedding(tensor, self.geometry(image.shape)) for tensor, image in zip(tensors, images, strict=True)]

    def encode(self, image: ImageArray) -> Embedding:
        """Encode one image."""
        return self.encode_batch([image])[0]

    def forward(
        self,
        embeddings: Tensor,
        geometries: Sequence[Geometry],
        prompts: Sequence[Prompts],
        outputs: slice = SINGLE,
    ) -> tuple[Tensor, Tensor]:
        """Low-res logits (N, C, L, L) and scores (N, C) of all objects of B images, image after image, with gradients.

        `embeddings` (B, C, h, w), one geometry and one `Prompts` an image; all prompts hold the same kinds and K.
        """
        return self._forward(embeddings, geometries, prompts, outputs)[:2]

    def _forward(
        self, embeddings: Tensor, geometries: Sequence[Geometry], prompts: Sequence[Prompts], outputs: slice
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """As `forward`, and logits (N,) that each object is there where the model says so."""
        if not len(embeddings) == len(geometries) == len(prompts):
            raise DataError(
                f"expected one geometry and one Prompts an image, "
                f"got {len(geometries)} and {len(prompts)} for {len(embeddings)} images"
            )
        device = self.device
        pairs = list(zip(geometries, prompts, strict=True))
        shapes = {(p.points.shape[1] if p.points is not None else 0, p.boxes is None, p.masks is None) for p in prompts}
        if len(shapes) != 1:
            raise DataError(f"expected prompts of the same kinds and number of points in a batch, got {sorted(shapes)}")
        wrong = [p.masks.shape for g, p in pairs if p.masks is not None and p.masks.shape[1] != g.logits_side]
        if wrong:
            side = geometries[0].logits_side
            raise DataError(f"expected mask prompts of {side}x{side} logits, got {wrong[0][1]}x{wrong[0][2]}")

        def gather(parts: list[Any]) -> Tensor | None:
            if parts[0] is None:
                return None
            return torch.from_numpy(np.concatenate(parts)).to(device)

        points = gather([None if p.points is None else g.points_to_model(p.points) for g, p in pairs])
        labels = gather([p.labels for p in prompts])
        boxes = gather([None if p.boxes is None else g.boxes_to_model(p.boxes) for g, p in pairs])
        masks = gather([p.masks for p in prompts])
        index = torch.from_numpy(np.repeat(np.arange(len(prompts)), [len(p) for p in prompts])).to(device)
        sparse, dense = embed_prompts(self.sam, points, labels, boxes, masks)
        return decode_with_presence(self.sam, embeddings.to(device, torch.float32), index, sparse, dense, outputs)

    def decode(self, embedding: Embedding, prompts: Prompts, multimask: bool = False) -> Prediction:
        """Masks of the objects that `prompts` point at, one each, or three with `multimask`; bounded memory."""
        return self.decode_outputs(embedding, prompts, THREE if multimask else SINGLE)

    def decode_outputs(self, embedding: Embedding, prompts: Prompts, outputs: slice) -> Prediction:
        """Like `decode`, with any of the decoder's masks: SINGLE, THREE, or ALL four (the single one first).

        The single one is chosen as the model's makers do: that of SAM 2 and 3 gives way where it is unstable.
        """
        return self.decode_each([embedding], [prompts], outputs)[0]

    def decode_each(
        self, embeddings: Sequence[Embedding], prompts: Sequence[Prompts], outputs: slice = SINGLE
    ) -> list[Prediction]:
        """`decode_outputs` of each of several embeddings with its prompts, which may differ in kind and number.

        What few objects of several images ask takes few passes of the decoder together. One image may come several
        times. Memory is bounded but for the low-res answers.
        """
        if len(embeddings) != len(prompts):
            raise DataError(f"expected one Prompts an embedding, got {len(prompts)} for {len(embeddings)}")
        for embedding in embeddings:
            self._check(embedding)
        if self.sam.training:
            self.sam.eval()
        found: list[list[_Answer]] = [[] for _ in prompts]
        with torch.no_grad():
            for part in self._passes(prompts):
                images = list({id(embeddings[number]): embeddings[number] for number, _ in part}.values())
                own = [[(number, some) for number, some in part if embeddings[number] is image] for image in images]
                asked = [joined([some for _, some in group]) for group in own]
                logits, scores, present = self._answers(images, asked, outputs)
                logits, scores, present = logits.cpu(), scores.cpu(), None if present is None else present.cpu()
                begin = 0
                for number, some in (pair for group in own for pair in group):
                    rows = slice(begin, begin := begin + len(some))
                    found[number].append((logits[rows], scores[rows], None if present is None else present[rows]))
        return [self._prediction(e.geometry, parts, outputs) for e, parts in zip(embeddings, found, strict=True)]

    def _passes(self, prompts: Sequence[Prompts]) -> Iterator[list[tuple[int, Prompts]]]:
        """All objects, cut into passes of the decoder, as (whose, which): of one form, and no more than fit a chunk."""
        chunk = self._chunk(self.embedding_shape)
        forms: dict[tuple[int, bool, bool], list[tuple[int, Prompts]]] = {}
        for number, one in enumerate(prompts):
            count = one.points.shape[1] if one.points is not None else 0
            parts = forms.setdefault((count, one.boxes is None, one.masks is None), [])
            parts += [(number, one[slice(start, start + chunk)]) for start in range(0, len(one), chunk)]
        for parts in forms.values():
            yield from packed(parts, lambda part: len(part[1]), chunk)

    def _prediction(self, geometry: Geometry, parts: Sequence[_Answer], outputs: slice) -> Prediction:
        if not parts:
            count = outputs.stop - outputs.start
            empty = torch.zeros(0, count, geometry.logits_side, geometry.logits_side)
            return Prediction(empty, torch.zeros(0, count), geometry)
        logits, scores, present = zip(*parts, strict=True)
        here = [part for part in present if part is not None]
        return Prediction(torch.cat(logits), torch.cat(scores), geometry, torch.cat(here) if here else None)

    def _check(self, embedding: Embedding) -> None:
        """Raise ModelError in one line for an embedding that another kind of model made."""
        geometry = embedding.geometry
        if geometry != self.geometry((geometry.height, geometry.width)):
            frame = "a stretched" if geometry.stretched else "a padded"
            raise ModelError(
                f"expected an embedding made at side {self.side} ({self.name}), got one of side {geometry.side} of "
                f"{frame} image; encode the image with this model"
            )
        shape = tuple(embedding.tensor.shape)
        if shape != (expected := self.embedding_shape):
            raise ModelError(
                f"expected an embedding of {expected} ({self.name}), got one of {shape}; "
                "encode the image with this model"
            )

    def _chunk(self, shape: tuple[int, ...]) -> int:
        """Objects that are decoded at once, of an image with an embedding of `shape` (C, h, w)."""
        if self.device.type != "cpu":
            return DECODE_CHUNK
        config: Any = self.sam.config
        features = 4 * int(config.prompt_encoder_config.hidden_size) * shape[1] * shape[2]
        return max(1, min(CPU_CHUNK, CPU_BYTES // features))

    def _answers(self, embeddings: Sequence[Embedding], prompts: Sequence[Prompts], outputs: slice) -> _Answer:
        """Logits (N, C, L, L), scores (N, C), logits (N,) of presence; the single mask chosen as the model has it."""
        tensors = torch.stack([embedding.tensor.to(self.device, torch.float32) for embedding in embeddings])
        asked = tensors, [embedding.geometry for embedding in embeddings], prompts
        if outputs.start or not is_dynamic(self.sam):
            return self._forward(*asked, outputs)
        logits, scores, present = self._forward(*asked, ALL)
        logits, scores = dynamic_single(self.sam, logits, scores)
        return logits[:, outputs], scores[:, outputs], present


def encoded(encoder: Callable[[Tensor], Any], pixels: Tensor) -> Tensor:
    """Embeddings (B, C, h, w) of encoder inputs (B, 3, S, S): transformers' encoders answer with more than a tensor."""
    answer = encoder(pixels)
    if hasattr(answer, "fpn_hidden_states"):
        return levels.embedded(encoder, answer.fpn_hidden_states)
    embeddings: Tensor = answer if isinstance(answer, Tensor) else answer.last_hidden_state
    return embeddings


def side_of(sam: Any) -> int:
    """The side of a model's square input, as its configuration says."""
    return int(getattr(sam.config.vision_config, "image_size", sam.config.prompt_encoder_config.image_size))


def weights_of(encoder_id: str) -> str:
    """An encoder's id without its arithmetic."""
    return encoder_id.partition("-")[0]


def fingerprint(module: nn.Module, *more: str) -> str:
    """sha256 over the names, shapes and bytes of all parameters and buffers of `module`, and over `more`."""
    return tensors_sha256(module.state_dict(), *more)


def tensors_sha256(tensors: Mapping[str, Tensor], *more: str) -> str:
    """sha256 over `more` and, in the order of their names, over the names, shapes, dtypes and bytes of tensors."""
    digest = hashlib.sha256("\n".join(more).encode())
    for name, tensor in sorted(tensors.items()):
        array = tensor.detach().cpu().contiguous()
        digest.update(f"{name}{tuple(array.shape)}{array.dtype}".encode())
        digest.update(array.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def usable_device(device: torch.device | str) -> torch.device:
    """The device of that name; UsageError in one line where torch has none such on this machine."""
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # unknown, not built in, or not there
        line = str(error).strip().partition("\n")[0]
        raise UsageError(
            f"expected a device that torch has here (cpu always), got {str(device)!r} ({line[:120]})"
        ) from error
