"""Ways to run an encoder, side by side, for nano and for architectures whose weights are random here.

python benchmarks/backends.py [MODEL ...] [--threads 2] [--images 3] [--names openvino ...]

MODEL is nano, mobile_sam, sam_vit_b, ...: random weights change no time, but make the agreement of masks no measure of
what real weights lose (`specialsam models backends MODEL` measures those). transformers' own encoder, in fp32, is
the rival for the ViTs. The pictures are generated.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from specialsam.core.console import say
from specialsam.core.geometry import ImageArray
from specialsam.models.architectures import build
from specialsam.models.backends import BACKENDS, Trial, table, trials
from specialsam.models.load import load_model
from specialsam.models.segmenter import Segmenter
from specialsam.models.vit import is_vit
from specialsam.models.zoo import CARDS
from specialsam.synth.scenes import scene


def segmenter_of(name: str) -> Segmenter:
    """The bundled model, or an architecture with random weights."""
    if name == "nano":
        return load_model(name)
    torch.manual_seed(0)
    return Segmenter(name, build(CARDS[name]), CARDS[name].side)


def transformers_own(segmenter: Segmenter, images: list[ImageArray]) -> Trial:
    """The encoder by transformers' own forward pass: median seconds a picture, after one to warm up."""
    spent = []
    for image in [images[0], *images]:
        began = time.perf_counter()
        with torch.no_grad():
            segmenter.encoder(segmenter.pixels(image)[None])
        spent.append(time.perf_counter() - began)
    return Trial("transformers", float(np.median(spent[1:])))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=["nano", "mobile_sam", "sam_vit_b"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--images", type=int, default=3)
    parser.add_argument("--names", nargs="*", default=[name for name in BACKENDS if not name.startswith("compiled")])
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    images = [scene(seed, 768).image for seed in range(asked.images)]
    for name in asked.models:
        segmenter = segmenter_of(name)
        found = trials(segmenter, images, asked.names)
        if is_vit(segmenter.encoder):
            found.insert(0, transformers_own(segmenter, images))
        say(f"{name}, {asked.threads} thread(s), {asked.images} pictures\n{table(found)}")


if __name__ == "__main__":
    main()
