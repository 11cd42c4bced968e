"""Miniature trees in the layouts of tools and public data sets; four discs each, of which a defect set's good ones
show none. Each builder returns the number of records and of objects that are to be found."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from discs import HIGH, WIDE, Pixels, disc, put, ring
from PIL import Image

SEEDS = range(4)


def byte(mask: Pixels) -> Pixels:
    return mask.astype(np.uint8) * 255


def corner() -> Pixels:
    """A second object of 6 x 7 pixels, far from every disc."""
    mask = np.zeros((HIGH, WIDE), np.bool_)
    mask[:6, :7] = True
    return mask


def write(path: Path, text: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text if isinstance(text, str) else json.dumps(text))


def one_folder(root: Path) -> tuple[int, int]:
    for seed in SEEDS:
        put(root / f"benign ({seed}).png", disc(seed)[0])
        put(root / f"benign ({seed})_mask.png", byte(disc(seed)[1]))
    put(root / "benign (0)_mask_1.png", byte(corner()))
    return 4, 5


def deepglobe(root: Path) -> tuple[int, int]:
    for seed in SEEDS:
        put(root / f"train/{seed}_sat.jpg", disc(seed)[0], quality=95)
        put(root / f"train/{seed}_mask.png", byte(disc(seed)[1]))
    return 4, 4


def roboflow(root: Path) -> tuple[int, int]:
    for seed in SEEDS:
        folder = root / ("valid" if seed == 3 else "train")
        put(folder / f"{seed}_jpg.rf.0a1b.jpg", disc(seed)[0], quality=95)
        put(folder / f"{seed}_jpg.rf.0a1b_mask.png", disc(seed)[1].astype(np.uint8))
        write(folder / "_classes.csv", "Pixel Value, Class\n0, background\n1, spot\n")
    return 4, 4


def cellpose(root: Path) -> tuple[int, int]:
    for seed in SEEDS:
        put(root / f"{seed}.tif", disc(seed)[0])
        tifffile.imwrite(root / f"{seed}_masks.tif", np.select([disc(seed)[1], corner()], [1, 2], 0).astype(np.uint16))
    return 4, 8


def same_name(root: Path) -> tuple[int, int]:
    for seed in SEEDS:
        put(root / f"{seed}.jpg", disc(seed)[0], quality=95)
        put(root / f"{seed}.png", byte(disc(seed)[1]))
    return 4, 4


def beside(name: str) -> Callable[[Path], tuple[int, int]]:
    def build(root: Path) -> tuple[int, int]:
        for seed in SEEDS:
            put(root / f"images/{seed}.jpg", disc(seed)[0], quality=95)
            put(root / f"{name}/{seed}.png", byte(disc(seed)[1]))
        return 4, 4

    return build


def split_labels(root: Path) -> tuple[int, int]:
    for seed in SEEDS:
        half = "val" if seed == 3 else "train"
        put(root / f"{half}/images/{seed}.jpg", disc(seed)[0], quality=95)
        put(root / f"{half}/labels/{seed}.png", byte(disc(seed)[1]))
    return 4, 4


def nnunet(root: Path) -> tuple[int, int]:
    for seed in SEEDS:
        put(root / f"imagesTr/case_{seed}_0000.png", disc(seed)[0])
        put(root / f"labelsTr/case_{seed}.png", disc(seed)[1].astype(np.uint8))
    write(root / "dataset.json", {"channel_names": {"0": "R"}, "labels": {"spot": 1}, "numTraining": 4})
    return 4, 4


def voc(root: Path) -> tuple[int, int]:
    for seed in SEEDS:
        put(root / f"JPEGImages/{seed}.jpg", disc(seed)[0], quality=95)
        labels = np.select([disc(seed, 8)[1], disc(seed, 10)[1], corner()], [1, 255, 2], 0).astype(np.uint8)
        for kind in ("SegmentationClass", "SegmentationObject"):
            indexed = Image.fromarray(labels, "P")
            indexed.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0] + [0, 0, 0] * 252 + [224, 224, 192])
            (root / kind).mkdir(parents=True, exist_ok=True)
            indexed.save(root / kind / f"{seed}.png")
    write(root / "ImageSets/Segmentation/train.txt", "0\n1\n2\n")
    write(root / "ImageSets/Segmentation/val.txt", "3\n")
    return 4, 8


def cvat(root: Path) -> tuple[int, int]:
    for seed in SEEDS:
        put(root / f"JPEGImages/{seed}.jpg", disc(seed)[0], quality=95)
        colours = np.zeros((HIGH, WIDE, 3), np.uint8)
        colours[disc(seed)[1]] = (0, 0, 255)
        put(root / f"SegmentationObject/{seed}.png", colours)
        put(root / f"SegmentationClass/{seed}.png", colours)
    write(root / "labelmap.txt", "# label:color_rgb:parts:actions\nbackground:0,0,0::\nspot:0,0,255::\n")
    return 4, 4


def nuclei(root: Path) -> tuple[int, int]:
    for seed in SEEDS:
        put(root / f"stage1_train/id{seed}/images/id{seed}.png", disc(seed)[0])
        put(root / f"stage1_train/id{seed}/masks/a.png", byte(disc(seed)[1]))
        put(root / f"stage1_train/id{seed}/masks/b.png", byte(corner()))
    return 4, 8


def loco(root: Path) -> tuple[int, int]:
    for seed in SEEDS:
        for name in ("train/good", "validation/good", "test/good", "test/logical_anomalies"):
            put(root / f"{name}/{seed:03d}.png", disc(seed)[0])
        put(root / f"ground_truth/logical_anomalies/{seed:03d}/000.png", byte(disc(seed)[1]))
    put(root / "ground_truth/logical_anomalies/000/001.png", byte(corner()))
    return 16, 5


def ad2(root: Path) -> tuple[int, int]:
    for seed in SEEDS:
        for name in ("train/good", "validation/good", "test_public/good", "test_public/bad", "test_private"):
            put(root / f"{name}/{seed:03d}_regular.png", disc(seed)[0])
        put(root / f"test_public/ground_truth/bad/{seed:03d}_regular_mask.png", byte(disc(seed)[1]))
    return 20, 4


def btad(root: Path) -> tuple[int, int]:
    for seed in SEEDS:
        for name in ("train/ok", "test/ok", "test/ko"):
            put(root / f"{name}/{seed:04d}.bmp", disc(seed)[0])
        put(root / f"ground_truth/ko/{seed:04d}.png", byte(disc(seed)[1]))
    return 12, 4


def visa(root: Path) -> tuple[int, int]:
    for thing in ("candle", "pcb1"):
        for seed in SEEDS:
            for name in ("Normal", "Anomaly"):
                put(root / f"{thing}/Data/Images/{name}/{seed:03d}.JPG", disc(seed)[0], quality=95)
            put(root / f"{thing}/Data/Masks/Anomaly/{seed:03d}.png", disc(seed)[1].astype(np.uint8))
    return 16, 8


def ksdd2(root: Path) -> tuple[int, int]:
    for seed in SEEDS:
        half = "test" if seed > 1 else "train"
        put(root / f"{half}/1{seed}.png", disc(seed)[0])
        put(root / f"{half}/1{seed}_GT.png", byte(disc(seed)[1] & bool(seed % 2)))
    return 4, 2


def magnetic_tiles(root: Path) -> tuple[int, int]:
    for seed in SEEDS:
        for kind in ("MT_Blowhole", "MT_Free"):
            put(root / f"{kind}/Imgs/exp1_num_{seed}.jpg", disc(seed)[0], quality=95)
            put(root / f"{kind}/Imgs/exp1_num_{seed}.png", byte(disc(seed)[1] & (kind == "MT_Blowhole")))
    return 8, 4


def shares(seed: int) -> str:
    return " ".join(f"{value / (WIDE, HIGH)[place % 2]:.6f}" for place, value in enumerate(ring(disc(seed)[2])))


def yolo(root: Path) -> tuple[int, int]:
    for seed in SEEDS:
        half = "val" if seed == 3 else "train"
        put(root / f"images/{half}/{seed}.jpg", disc(seed)[0], quality=95)
        write(root / f"labels/{half}/{seed}.txt", f"0 {shares(seed)}\n")
    put(root / "images/train/none.jpg", disc(9)[0], quality=95)
    write(root / "data.yaml", "path: .\ntrain: images/train\nnames:\n  0: spot\n")
    return 5, 4


def yolo_splits(root: Path) -> tuple[int, int]:
    for seed in SEEDS:
        half = "valid" if seed == 3 else "train"
        put(root / f"{half}/images/{seed}.jpg", disc(seed)[0], quality=95)
        write(root / f"{half}/labels/{seed}.txt", f"0 {shares(seed)}")
    write(root / "data.yaml", "nc: 1\nnames: ['spot']\nlicense: CC BY 4.0\n")
    return 4, 4


def yolo_flat(root: Path) -> tuple[int, int]:
    for seed in SEEDS:
        put(root / f"{seed}.jpg", disc(seed)[0], quality=95)
        write(root / f"{seed}.txt", f"0 {shares(seed)}")
    write(root / "classes.txt", "spot\n")
    return 4, 4


def shapes(seed: int) -> list[dict[str, Any]]:
    points = np.array(ring(disc(seed)[2])).reshape(-1, 2).tolist()
    return [{"label": "spot", "points": points, "group_id": None, "shape_type": "polygon", "flags": {}}]


def labelme(root: Path) -> tuple[int, int]:
    """A polygon, a circle, a mask, and two polygons of one group."""
    buffer = io.BytesIO()
    Image.fromarray(byte(corner()[:6, :7])).save(buffer, "PNG")
    x, y = disc(1)[2]
    more: dict[int, list[dict[str, Any]]] = {
        0: shapes(0),
        1: [{"label": "spot", "points": [[x, y], [x + 9, y]], "shape_type": "circle"}],
        2: [
            *shapes(2),
            {
                "label": "spot",
                "points": [[0, 0], [6, 5]],
                "shape_type": "mask",
                "mask": base64.b64encode(buffer.getvalue()).decode(),
            },
        ],
        3: [{**shape, "group_id": 1} for shape in [*shapes(3), {**shapes(3)[0], "points": [[0, 0], [6, 0], [6, 6]]}]],
    }
    for seed in SEEDS:
        put(root / f"{seed}.jpg", disc(seed)[0], quality=95)
        content = {"version": "5.4", "shapes": more[seed], "imagePath": f"..\\raw\\{seed}.jpg", "imageData": None}
        write(root / f"{seed}.json", {**content, "imageHeight": HIGH, "imageWidth": WIDE})
    return 4, 5


def x_anylabeling(root: Path) -> tuple[int, int]:
    for seed in SEEDS:
        put(root / f"images/{seed}.jpg", disc(seed)[0], quality=95)
        content = {"imageData": "x" * 9000, "shapes": shapes(seed), "imagePath": f"{seed}.jpg"}
        write(root / f"labels/{seed}.json", {**content, "imageHeight": HIGH, "imageWidth": WIDE})
    put(root / "images/plain.jpg", disc(9)[0], quality=95)
    return 5, 4


def label_studio_rle(mask: Pixels) -> list[int]:
    """Brush run lengths as Label Studio writes them, each run of one number with its length in 16 bits."""
    flat = np.repeat(byte(mask).ravel(), 4)
    ends = np.flatnonzero(np.diff(flat)) + 1
    bits = f"{flat.size:032b}" + f"{7:05b}" + "".join(f"{width - 1:04b}" for width in (3, 4, 8, 16))
    for start, end in zip([0, *ends], [*ends, flat.size], strict=True):
        bits += "1" + "11" + f"{end - start - 1:016b}" + f"{flat[start]:08b}"
    bits += "0" * (-len(bits) % 8)
    return [int(bits[place : place + 8], 2) for place in range(0, len(bits), 8)]


def label_studio(root: Path) -> tuple[int, int]:
    """Polygons, a brush mask, a task with nothing and one that nobody annotated."""
    tasks: list[dict[str, Any]] = []
    for seed in SEEDS:
        put(root / f"media/upload/4/{seed}.jpg", disc(seed)[0], quality=95)
        points = (np.array(ring(disc(seed)[2])).reshape(-1, 2) / [WIDE / 100, HIGH / 100]).tolist()
        polygon = {"type": "polygonlabels", "value": {"points": points, "polygonlabels": ["spot"]}}
        rle = {"format": "rle", "rle": label_studio_rle(disc(seed)[1]), "brushlabels": ["spot"]}
        result = {"type": "brushlabels", "value": rle} if seed % 2 else polygon
        data = {"image": f"/data/upload/4/0123abcd-{seed}.jpg"}
        tasks.append({"id": seed, "data": data, "annotations": [{"result": [result]}]})
    for name, drawn in (("none", [{"result": []}]), ("open", [])):
        put(root / f"media/upload/4/{name}.jpg", disc(9)[0], quality=95)
        tasks.append({"data": {"image": f"..\\media\\upload\\4\\{name}.jpg"}, "annotations": drawn})
    write(root / "project-4.json", tasks)
    return 6, 4


LAYOUTS: dict[str, tuple[str, Callable[[Path], tuple[int, int]]]] = {
    "pairs in one folder": ("siblings", one_folder),
    "DeepGlobe": ("siblings", deepglobe),
    "Roboflow's masks": ("siblings", roboflow),
    "cellpose": ("siblings", cellpose),
    "equal names": ("siblings", same_name),
    "labels": ("labelled", beside("labels")),
    "gt": ("labelled", beside("gt")),
    "annotations": ("labelled", beside("annotations")),
    "ground_truth": ("labelled", beside("ground_truth")),
    "splits of labels": ("labelled", split_labels),
    "nnU-Net": ("labelled", nnunet),
    "Pascal VOC": ("voc", voc),
    "CVAT's masks": ("voc", cvat),
    "nuclei": ("nuclei", nuclei),
    "MVTec LOCO": ("mvtec_loco", loco),
    "MVTec AD 2": ("mvtec_ad2", ad2),
    "BTAD": ("btad", btad),
    "VisA": ("visa", visa),
    "KolektorSDD2": ("ksdd2", ksdd2),
    "magnetic tiles": ("magnetic_tiles", magnetic_tiles),
    "YOLO": ("yolo", yolo),
    "YOLO in splits": ("yolo", yolo_splits),
    "YOLO side by side": ("yolo", yolo_flat),
    "labelme": ("labelme", labelme),
    "X-AnyLabeling": ("labelme", x_anylabeling),
    "Label Studio": ("label_studio", label_studio),
}
