"""Cards: what is known of each published set of weights, and the numbers that its architecture is built from.

The six digits in Meta's file names begin the file's MD5, not its SHA-256. Meta publishes no SHA-256 and the authors of
MobileSAM publish no hash at all; the ones here were recorded for the official downloads by many independent projects,
micro-sam among them for all four, and they agree.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from specialsam.core.errors import UsageError

EncoderKind = Literal["vit", "tinyvit", "conv", "lite"]


@dataclass(frozen=True)
class VitNumbers:
    """SAM's ViT with windows (Kirillov et al. 2023, appendix A); blocks in `global_blocks` see the whole image."""

    width: int
    blocks: int
    heads: int
    global_blocks: tuple[int, ...]
    window: int = 14
    patch: int = 16


@dataclass(frozen=True)
class TinyVitNumbers:
    """The four stages of `tinyvit.TinyViT`, and the width of the classification head that the checkpoint carries."""

    dims: tuple[int, int, int, int] = (64, 128, 160, 320)
    depths: tuple[int, int, int, int] = (2, 2, 6, 2)
    heads: tuple[int, int, int, int] = (2, 4, 5, 10)
    windows: tuple[int, int, int, int] = (7, 7, 14, 7)
    classes: int = 1000


@dataclass(frozen=True)
class Card:
    """One published set of weights.

    `parameters` counts the elements of the checkpoint that are learned or fixed weights (statistics of batch
    normalisation left out), `side` is the side of the model's square input in pixels, `numbers` the encoder's
    architecture (None for one that is built elsewhere), `channels` the width of the embedding. `sha256` is None where
    none is known; such a file is not verified.
    """

    name: str
    title: str
    url: str
    filename: str
    sha256: str | None
    licence: str
    paper: str
    parameters: int
    side: int
    encoder: EncoderKind
    numbers: VitNumbers | TinyVitNumbers | None = None
    channels: int = 256


SEGMENT_ANYTHING = "https://dl.fbaipublicfiles.com/segment_anything"
SAM_PAPER = "Kirillov et al. 2023, Segment Anything, arXiv:2304.02643"
MOBILE_SAM_PAPER = "Zhang et al. 2023, Faster Segment Anything, arXiv:2306.14289"


def _sam(size: str, digits: str, sha256: str, parameters: int, numbers: VitNumbers) -> Card:
    filename = f"sam_vit_{size}_{digits}.pth"
    return Card(
        name=f"sam_vit_{size}",
        title=f"Segment Anything, ViT-{size.upper()}",
        url=f"{SEGMENT_ANYTHING}/{filename}",
        filename=filename,
        sha256=sha256,
        licence="Apache-2.0",
        paper=SAM_PAPER,
        parameters=parameters,
        side=1024,
        encoder="vit",
        numbers=numbers,
    )


CARDS: dict[str, Card] = {
    card.name: card
    for card in (
        _sam(
            "b",
            "01ec64",
            "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
            93_735_728,
            VitNumbers(width=768, blocks=12, heads=12, global_blocks=(2, 5, 8, 11)),
        ),
        _sam(
            "l",
            "0b3195",
            "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
            312_343_088,
            VitNumbers(width=1024, blocks=24, heads=16, global_blocks=(5, 11, 17, 23)),
        ),
        _sam(
            "h",
            "4b8939",
            "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
            641_090_864,
            VitNumbers(width=1280, blocks=32, heads=16, global_blocks=(7, 15, 23, 31)),
        ),
        Card(
            name="mobile_sam",
            title="MobileSAM, TinyViT-5M",
            url="https://raw.githubusercontent.com/ChaoningZhang/MobileSAM/master/weights/mobile_sam.pt",
            filename="mobile_sam.pt",
            sha256="6dbb90523a35330fedd7f1d3dfc66f995213d81b29a5ca8108dbcdd4e37d6c2f",
            licence="Apache-2.0",
            paper=MOBILE_SAM_PAPER,
            parameters=10_130_348,
            side=1024,
            encoder="tinyvit",
            numbers=TinyVitNumbers(),
        ),
    )
}
"""Every model that can be fetched, by name."""


NANO = Card(
    name="nano",
    title="nano, bundled: an ImageNet backbone, all else trained on generated images",
    url="bundled with the package",
    filename="model.safetensors",
    sha256="d0b9856e046c0b75a385faf2d0458591b2ac27f08293c45bb86fa4415f1dabf9",
    licence="Apache-2.0",
    paper="docs/nano.md",
    parameters=5_238_384,
    side=384,
    encoder="lite",
    channels=128,
)
"""The model inside the package; `sha256` is that of its file."""


def card(name: str) -> Card:
    """The card of that name, `nano` included; UsageError in one line for an unknown one."""
    if name == NANO.name:
        return NANO
    if name not in CARDS:
        raise UsageError(f"expected a model of {', '.join(CARDS)} or {NANO.name}, got {name!r}")
    return CARDS[name]
