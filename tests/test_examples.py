"""The scripts in `examples/` do what their first lines say, as programs of their own (see also test_onnx_files)."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from specialsam.data.label_studio import brush_mask
from specialsam.models.specialist import is_specialist
from specialsam.synth.scenes import scene

EXAMPLES = Path(__file__).parents[1] / "examples"
CONFIG = """<View><Image name="img" value="$photo"/>
<BrushLabels name="brush" toName="img"><Label value="fox"/></BrushLabels>
<KeyPointLabels name="kp" toName="img" smart="true"><Label value="fox"/></KeyPointLabels></View>"""


def run(name: str, *arguments: object) -> str:
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain data set of bright discs: images/ and masks/ with equal names."""
    root = tmp_path_factory.mktemp("discs")
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:96, :128]
    for number in range(12):
        image = rng.integers(0, 90, (96, 128, 3), dtype=np.uint8)
        x, y = rng.integers(30, 98), rng.integers(30, 66)
        mask = np.hypot(columns - x, rows - y) < 18
        image[mask] += 120
        for folder, pixels in (("images", image), ("masks", mask.astype(np.uint8) * 255)):
            (root / folder).mkdir(exist_ok=True)
            Image.fromarray(pixels).save(root / folder / f"{number:02}.png")
    return root


@pytest.mark.slow
def test_specialise_a_folder_and_find_with_it(pictures: Path, tmp_path: Path) -> None:
    said = run("specialise_a_folder.py", pictures, tmp_path / "run", "--quick")
    assert is_specialist(tmp_path / "run" / "specialist")
    assert (tmp_path / "run" / "report.html").exists()
    assert "points of IoU" in said
    said = run("find_without_a_prompt.py", tmp_path / "run" / "specialist", pictures / "images", tmp_path / "found")
    read = COCO(str(tmp_path / "found" / "coco.json"))
    assert len(read.getImgIds()) == 12
    assert f"{len(read.getAnnIds())} objects" in said


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    folder = tmp_path_factory.mktemp("media")
    Image.fromarray(scene(3, 256).image).save(folder / "0a1b2c3d-a.png")
    command = [sys.executable, str(EXAMPLES / "label_studio_backend.py"), "nano", str(folder), "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as server:
        try:
            assert server.stdout is not None
            line = server.stdout.readline()
            assert "http://127.0.0.1:" in line, line + server.stdout.read()
            yield line.split()[-1], folder
        finally:
            server.terminate()


def ask(address: str, path: str, body: object = None) -> tuple[int, Any]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address + path, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def request(name: str, *drawn: dict[str, Any]) -> dict[str, Any]:
    """As Label Studio sends it."""
    return {
        "tasks": [{"id": 7, "data": {"photo": f"/data/upload/1/{name}"}, "annotations": [], "predictions": []}],
        "project": "1.1790000000",
        "label_config": CONFIG,
        "params": {"login": None, "password": None, "context": {"result": list(drawn)}},
    }


@pytest.mark.slow
def test_the_backend_speaks_label_studio_s_protocol(backend: tuple[str, Path]) -> None:
    address, folder = backend
    assert ask(address, "/health") == (200, {"status": "UP", "model_class": "specialsam"})
    setup = {"project": "1.1790000000", "schema": CONFIG, "hostname": "", "access_token": ""}
    assert ask(address, "/setup", setup) == (200, {"model_version": "nano"})
    value = {"x": 50.0, "y": 50.0, "width": 0.4, "keypointlabels": ["fox"]}
    click = {"type": "keypointlabels", "is_positive": 1, "value": value, "from_name": "kp", "to_name": "img"}
    status, made = ask(address, "/predict", request("0a1b2c3d-a.png", click))
    assert status == 200
    assert set(made) == {"results", "model_version"}
    ((region,),) = [one["result"] for one in made["results"]]
    with Image.open(folder / "0a1b2c3d-a.png") as image:
        size = image.size[::-1]
    assert brush_mask(region["value"]["rle"], size).any()
    assert region["value"]["brushlabels"] == ["fox"]


@pytest.mark.slow
def test_the_backend_says_which_picture_it_lacks_and_goes_on(backend: tuple[str, Path]) -> None:
    status, made = ask(backend[0], "/predict", request("elsewhere.png"))
    assert status == 400
    assert "expected the picture '/data/upload/1/elsewhere.png' of task 7" in made["detail"]
    assert ask(backend[0], "/predict", [])[0] == 400
    assert ask(backend[0], "/health")[0] == 200
