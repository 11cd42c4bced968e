"""Models for other programs: a transformers folder, a `.pth` in segment-anything's layout, files for other runtimes."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from specialsam.core.console import say
from specialsam.core.documents import parse_json
from specialsam.core.errors import ModelError, UsageError
from specialsam.core.files import write_whole
from specialsam.core.geometry import ImageArray
from specialsam.models.architectures import to_official
from specialsam.models.folder import encoder_kind, save_pretrained
from specialsam.models.labeling_files import CONFIG, export_labeling
from specialsam.models.levels import has_levels
from specialsam.models.load import load_model
from specialsam.models.onnx_files import Agreement, export_onnx
from specialsam.models.segmenter import Segmenter
from specialsam.models.specialist import is_specialist, licence_of, load_finder
from specialsam.models.traced import need
from specialsam.models.zoo import CARDS, SAM3_LICENCE, Card, VitNumbers

NOTICE = "NOTICE"
LABELING = "x-anylabeling"
_OURS = re.compile(
    r"(config|generation_config|preprocessor_config|processor_config|runtime)\.json|model(-\d+-of-\d+)?\.safetensors|"
    r"model\.safetensors\.index\.json|(encoder|decoder|finder)\.(onnx|xml|bin)|[\w.-]+\.(en|de)coder\.onnx|"
    r"x-anylabeling\.yaml|NOTICE"
)
"""Names of the files that an export writes."""
FORMATS = ("torch", "onnx", "openvino", LABELING)


def export_model(
    model: str,
    out: Path,
    base: str | None = None,
    *,
    trust_base: bool = False,
    check: Sequence[ImageArray] = (),
    kind: str = "torch",
) -> Path:
    """Load any model and write it to `out`: `.pth` and `.pt` in the official layout, anything else as a folder.

    `base` is that of `load_model`. A folder of `kind` onnx or openvino holds the same files for those runtimes beside
    it (`onnx_files`), checked on the pictures `check`, uint8 (H, W, 3); one of x-anylabeling holds a pair of ONNX files
    and their YAML alone (`labeling_files`).
    """
    out = Path(os.path.abspath(out))  # noqa: PTH100 - resolve() would lose the names of linked folders; . has a name
    _check_place(out)
    if kind not in FORMATS:
        raise UsageError(f"expected a --format of {', '.join(FORMATS)}, got {kind!r}")
    if kind != "torch" and out.suffix in (".pth", ".pt"):
        raise UsageError(f"expected a folder to export {kind} files to, got {out}")
    segmenter = load_model(model, base, trust_base=trust_base)
    if has_levels(segmenter.sam) and (kind != "torch" or out.suffix in (".pth", ".pt")):
        asked = f"--format {kind}" if kind != "torch" else f"{out.suffix} files"
        raise ModelError(
            f"expected a model of SAM's, MobileSAM's or nano's architecture for {asked}, got {segmenter.name}, which "
            "answers with several levels; export it to a transformers folder (--format torch)"
        )
    if kind == LABELING:
        need("onnxruntime")
        say(f"writing the pair for X-AnyLabeling and checking it on {len(check)} pictures: about half a minute")
        _said(export_labeling(segmenter, out, check))
        return out
    if out.suffix not in (".pth", ".pt"):
        try:
            folder = save_pretrained(segmenter, out)
            _pass_licence_on(segmenter, folder)
            if kind != "torch":
                _for_runtimes(segmenter, folder, check, kind)
            return folder
        except (OSError, SafetensorError) as error:
            reason = " ".join(str(error).split())
            raise ModelError(f"cannot write {out} ({reason}); make room or choose another folder") from error
    state = to_official(segmenter.sam.state_dict(), official_card(segmenter))
    plain = {name: value.detach().cpu().clone().contiguous() for name, value in state.items()}
    write_whole(out, lambda path: torch.save(plain, path))
    return out


def _pass_licence_on(segmenter: Segmenter, folder: Path) -> None:
    """Say beside an exported model, and on the console, under which licence it is where that passes on."""
    if licence_of(segmenter) == SAM3_LICENCE:
        text = (
            f"{segmenter.name} was made from SAM 3 and is under Meta's {SAM3_LICENCE} as that is: who passes it on "
            "does so under the same terms, with a copy of them (https://github.com/facebookresearch/sam3/blob/main/LICENSE)."
        )
        write_whole(folder / NOTICE, lambda path: path.write_text(f"{text}\n", encoding="utf-8"))
        say(f"note: {text}")


def _for_runtimes(segmenter: Segmenter, folder: Path, check: Sequence[ImageArray], kind: str) -> None:
    """ONNX files of a model and of its finder where it has one, and OpenVINO's from them where that is asked for."""
    need("onnxruntime")
    if kind == "openvino":  # say so before the work, not after
        need(kind)
    source = Path(segmenter.source)
    finder = load_finder(source).finder if segmenter.source and is_specialist(source) else None
    found = export_onnx(segmenter, finder, folder, check)
    _said(found)
    if kind == "openvino":
        openvino = need(kind)
        for path in sorted(folder.glob("*.onnx")):
            openvino.save_model(openvino.convert_model(str(path)), str(path.with_suffix(".xml")), compress_to_fp16=True)


def _said(found: Agreement) -> None:
    say(f"masks agree to {found.mean:.4f} (mean IoU of {found.masks} masks; {found.low:.3f} at the 5th percentile)")


def _check_place(out: Path) -> None:
    """Refuse a place whose content is no model of ours to replace."""
    if out.suffix in (".safetensors", ".onnx", ".bin", ".ckpt"):
        raise UsageError(f"expected a folder or a .pth file to export to, got {out}")
    if out.suffix in (".pth", ".pt"):
        if out.is_dir():
            raise UsageError(f"expected a .pth file to write, {out} is a folder")
    elif out.is_file():
        raise UsageError(f"expected a folder to export to, {out} is a file")
    elif out.is_dir() and any(out.iterdir()) and not _is_exported(out):
        raise UsageError(f"expected an empty folder, or an exported model to replace, {out} holds other files")


def _is_exported(folder: Path) -> bool:
    """Whether a folder holds what an export writes and nothing else, so that replacing it loses nothing."""
    if any(not _OURS.fullmatch(path.name) or not path.is_file() for path in folder.iterdir()):
        return False
    try:
        return (folder / CONFIG).is_file() or "model_type" in parse_json((folder / "config.json").read_text())
    except (OSError, ValueError, TypeError):
        return False


def official_card(segmenter: Segmenter) -> Card:
    """The zoo card whose architecture a segmenter has; ModelError where the official layouts know none like it."""
    sam: Any = segmenter.sam
    kind = encoder_kind(segmenter)
    for card in CARDS.values():
        if card.encoder != kind or card.side != segmenter.side:
            continue
        vision = sam.config.vision_config
        if not isinstance(card.numbers, VitNumbers) or (
            card.numbers.width == vision.hidden_size and card.numbers.blocks == vision.num_hidden_layers
        ):
            return card
    raise ModelError(
        f"expected a model of {', '.join(CARDS)} (or a specialist on one) for a .pth, got {segmenter.name}; "
        "export it to a folder instead"
    )
