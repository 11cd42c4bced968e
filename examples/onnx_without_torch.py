"""One click on a picture by an exported model, without torch: python onnx_without_torch.py FOLDER PICTURE X Y MASK.png

FOLDER is what `specialsam export MODEL -o FOLDER --format onnx` wrote; X and Y are pixels of the picture.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

folder, picture, x, y, out = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]), float(sys.argv[4]), sys.argv[5]
facts = json.loads((folder / "runtime.json").read_text())
encoder, decoder = (onnxruntime.InferenceSession(str(folder / f"{part}.onnx")) for part in ("encoder", "decoder"))

image, side = Image.open(picture).convert("RGB"), facts["side"]
scale = side / max(image.size)
width, height = (max(1, int(length * scale + 0.5)) for length in image.size)
small = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR), np.float32)
pixels = np.zeros((1, 3, side, side), np.float32)
pixels[0, :, :height, :width] = ((small - facts["pixel_mean"]) / facts["pixel_std"]).transpose(2, 0, 1)

(embeddings,) = encoder.run(None, {"pixels": pixels})
asked = {
    "image_embeddings": embeddings,
    "point_coords": np.array([[[x * width / image.width, y * height / image.height], [0, 0]]], np.float32),
    "point_labels": np.array([[1, -1]], np.float32),
    "mask_input": np.zeros((1, 1, side // 4, side // 4), np.float32),
    "has_mask_input": np.zeros(1, np.float32),
}
logits, scores = decoder.run(None, asked)
square = Image.fromarray(logits[0, 0]).resize((side, side), Image.Resampling.BILINEAR).crop((0, 0, width, height))
mask = np.asarray(square.resize(image.size, Image.Resampling.BILINEAR)) > 0
Image.fromarray(mask).save(out)
print(f"{out}: {mask.mean():.1%} of the picture, own score {scores[0, 0]:.2f}")
