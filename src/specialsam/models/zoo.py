"""Cards: what is known of each published set of weights, and the numbers that its architecture is built from.

The six digits in Meta's file names begin the file's MD5, not its SHA-256. Meta publishes no SHA-256 and the authors of
MobileSAM publish no hash at all; the ones here were recorded for the official downloads by many independent projects,
micro-sam among them for all of SAM, MobileSAM and SAM 2.1, and they agree; none of the files was hashed by us.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from specialsam.core.errors import UsageError

EncoderKind = Literal["vit", "tinyvit", "conv", "lite", "hiera", "perception"]


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
class HieraNumbers:
    """SAM 2's Hiera (Ravi et al. 2024): four stages, each half as fine and twice as wide as the one before.

    `heads` are those of the first stage, `windows` in cells of each, `background` the side of the learned positions
    that are spread over the whole image.
    """

    width: int
    heads: int
    blocks: tuple[int, int, int, int]
    global_blocks: tuple[int, ...]
    windows: tuple[int, int, int, int] = (8, 4, 14, 7)
    background: int = 7


@dataclass(frozen=True)
class PerceptionNumbers:
    """SAM 3's perception encoder, a ViT with rotary positions; `inner` is the width within its perceptrons,
    `trained_side` the side of the images whose learned positions are repeated over larger ones."""

    width: int = 1024
    inner: int = 4736
    blocks: int = 32
    heads: int = 16
    global_blocks: tuple[int, ...] = (7, 15, 23, 31)
    window: int = 24
    patch: int = 14
    trained_side: int = 336


@dataclass(frozen=True)
class Card:
    """One published set of weights.

    `parameters` counts the elements of the checkpoint that are learned or fixed weights (statistics of batch
    normalisation left out), `side` is the side of the model's square input in pixels, `numbers` the encoder's
    architecture (None for one that is built elsewhere), `channels` the width of the embedding (of its coarsest level).
    `sha256` is None where none is known; such a file is not verified. Of SAM 2 and 3 only what a single image needs is
    counted: the checkpoints hold what videos and texts need beside it.
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
    numbers: VitNumbers | TinyVitNumbers | HieraNumbers | PerceptionNumbers | None = None
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


SEGMENT_ANYTHING_2 = "https://dl.fbaipublicfiles.com/segment_anything_2/092824"
SAM2_PAPER = "Ravi et al. 2024, SAM 2: Segment Anything in Images and Videos, arXiv:2408.00714"
SAM3_PAPER = "Carion et al. 2025, SAM 3: Segment Anything with Concepts, arXiv:2511.16719"
SAM3_LICENCE = "SAM License"
"""Of SAM 3, by Meta: whoever passes on what was made from it does so under the same terms, with their text."""


def _sam2(size: str, sha256: str, parameters: int, numbers: HieraNumbers) -> Card:
    filename = f"sam2.1_hiera_{size}.pt"
    return Card(
        name=filename.removesuffix(".pt"),
        title=f"SAM 2.1, Hiera-{size.replace('_plus', '+')}",
        url=f"{SEGMENT_ANYTHING_2}/{filename}",
        filename=filename,
        sha256=sha256,
        licence="Apache-2.0",
        paper=SAM2_PAPER,
        parameters=parameters,
        side=1024,
        encoder="hiera",
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
        _sam2(
            "tiny",
            "7402e0d864fa82708a20fbd15bc84245c2f26dff0eb43a4b5b93452deb34be69",
            31_440_721,
            HieraNumbers(width=96, heads=1, blocks=(1, 2, 7, 2), global_blocks=(5, 7, 9)),
        ),
        _sam2(
            "small",
            "6d1aa6f30de5c92224f8172114de081d104bbd23dd9dc5c58996f0cad5dc4d38",
            38_538_577,
            HieraNumbers(width=96, heads=1, blocks=(1, 2, 11, 2), global_blocks=(7, 10, 13)),
        ),
        _sam2(
            "base_plus",
            "a2345aede8715ab1d5d31b4a509fb160c5a4af1970f199d9054ccfb746c004c5",
            73_328_401,
            HieraNumbers(width=112, heads=2, blocks=(2, 3, 16, 3), global_blocks=(12, 16, 20), background=14),
        ),
        _sam2(
            "large",
            "2647878d5dfa5098f2f8649825738a9345572bae2d4350a2468587ece47dd318",
            216_924_865,
            HieraNumbers(width=144, heads=2, blocks=(2, 6, 36, 4), global_blocks=(23, 33, 43), windows=(8, 4, 16, 8)),
        ),
        Card(
            name="sam3_tracker",
            title="SAM 3, its tracker on single images (access on request)",
            url="https://huggingface.co/facebook/sam3/resolve/main/sam3.pt",
            filename="sam3.pt",
            sha256="9999e2341ceef5e136daa386eecb55cb414446a00ac2b55eb2dfd2f7c3cf8c9e",
            licence=SAM3_LICENCE,
            paper=SAM3_PAPER,
            parameters=457_407_889,
            side=1008,
            encoder="perception",
            numbers=PerceptionNumbers(),
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
