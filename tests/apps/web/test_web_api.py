"""The API against what the same session answers without any server, and against its own promises."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from small_models import picture
from web_parts import PICTURE, Site, packed, runs_of, until

from specialsam.apps.answers import FoundObject
from specialsam.apps.asked import Asked
from specialsam.apps.session import Asking, Session, answer_asked, find_in, open_session
from specialsam.apps.web.client import Busy, find, segment, upload
from specialsam.core.errors import UsageError
from specialsam.core.masks import from_rles
from specialsam.data.images import read_mask_pixels
from specialsam.data.loading import load
from specialsam.data.open import open_dataset


@pytest.fixture(scope="module")
def session(site: Site, place: Path) -> Session:
    """The specialist with its base, as the server's process loads it."""
    return open_session(place / "animals", with_base=True)


def uploaded(site: Site, seed: int = 1) -> dict[str, object]:
    answer = site.upload(packed(picture(seed)))
    assert answer.status == 201, answer.body
    return dict(answer.json())


def same(told: list[dict[str, object]], objects: tuple[FoundObject, ...]) -> None:
    assert [one["rle"] for one in told] == [one.rle for one in objects]
    assert [one["box"] for one in told] == [list(one.box) for one in objects]
    np.testing.assert_allclose([one["score"] for one in told], [np.clip(one.score, 0, 1) for one in objects], atol=1e-5)


def test_prompts_are_answered_as_without_a_server(site: Site, session: Session) -> None:
    known = uploaded(site)
    assert (known["height"], known["width"]) == (48, 64)
    prompts = [{"points": [[30, 20], [5, 5]], "labels": [1, 0]}, {"box": [4, 4, 40, 30]}]
    answer = site.post("segment", {"image": known["image"], "prompts": prompts})
    asked = [
        Asked("p", np.array([[30, 20], [5, 5]], np.float32), np.array([1, 0]), source="0"),
        Asked("p", box=(4, 4, 40, 30), source="1"),
    ]
    objects, beside = answer_asked(session, picture(1), asked, Asking())
    told = answer.json()
    same(told["objects"], objects)
    same(told["beside"], beside)
    assert [one["prompt"] for one in told["objects"]] == [int(one.source) for one in objects]
    assert [one["rle"] for one in told["objects"]] != [one["rle"] for one in told["beside"]]


def test_finding_is_answered_as_without_a_server(site: Site, session: Session) -> None:
    known = uploaded(site, 2)
    answer = site.post("find", {"image": known["image"], "most": 4, "threshold": 0.0})
    objects, beside = find_in(session, picture(2), Asking(most=4, threshold=0.0))
    assert objects
    same(answer.json()["objects"], objects)
    same(answer.json()["beside"], beside)


def test_a_model_is_chosen_by_its_id_and_by_nothing_else(site: Site, place: Path) -> None:
    models = {"animals" if one["specialist"] else "base": one for one in site.get("models").json()["models"]}
    assert models["animals"]["in_use"]
    assert models["animals"]["name"] == "animals"
    known = uploaded(site)
    question = {"image": known["image"], "prompts": [{"points": [[30, 20]]}]}
    base = site.post("segment", {**question, "model": models["base"]["id"]}).json()
    tuned = site.post("segment", question).json()
    assert base["objects"][0]["rle"] == tuned["beside"][0]["rle"]
    assert base["beside"] == []
    for name in (str(place / "animals"), "nano", "../animals", "http://127.0.0.1/x", "m99"):
        assert site.post("segment", {**question, "model": name}).status in (404, 422)
        assert site.post("models/use", {"model": name}).status in (404, 422)
    assert site.post("models/use", {"model": models["base"]["id"]}).status == 200
    assert site.post("segment", question).json()["objects"] == base["objects"]
    site.post("models/use", {"model": models["animals"]["id"]})


def test_the_client_asks_the_same(site: Site, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(packed(picture(1)))
    known = upload(site.address, tmp_path / "a.png")
    again = upload(site.address, tmp_path / "a.png", session=known.session)
    assert again.session == known.session
    plain = site.post("segment", {"image": known.image, "prompts": [{"points": [[30, 20]], "box": [4, 4, 40, 30]}]})
    assert segment(again, [(30, 20)], box=(4, 4, 40, 30))["objects"] == plain.json()["objects"]
    found = site.post("find", {"image": known.image, "most": 3})
    assert find(again, most=3)["objects"] == found.json()["objects"]
    with pytest.raises(UsageError, match="404"):
        segment(known.__class__(site.address, "nobody", "", 1, 1), [(1, 1)])


def test_what_is_wrong_with_a_question_is_said_in_one_line(site: Site) -> None:
    known = uploaded(site)
    for prompt, word in (
        ({"points": [[900, 2]]}, "within the image of 64x48 pixels"),
        ({"points": [[3, 2]], "labels": [1, 0]}, "a label for each"),
        ({"points": [[3, 2]], "labels": [2]}, "labels"),
        ({"box": [50, 4, 3, 30]}, "box"),
        ({}, "points or a box"),
        ({"points": [[3, float("nan")]]}, "points"),
        ({"points": [["\ud800", 2]]}, "points"),
    ):
        answer = site.post("segment", {"image": known["image"], "prompts": [prompt]})
        assert answer.status == 422, prompt
        assert word in answer.json()["error"], answer.body
        assert "\n" not in answer.json()["error"]
    assert site.post("segment", {"image": "nobody", "prompts": [{"points": [[1, 1]]}]}).status == 404


def test_pictures_go_with_their_session(site: Site) -> None:
    known = uploaded(site, 3)
    place = site.server.visits.pictures[str(known["image"])].path
    assert place.read_bytes() == packed(picture(3))
    assert site.ask("DELETE", f"/api/v1/sessions/{known['session']}").status == 204
    assert not place.parent.exists()
    assert site.post("find", {"image": known["image"]}).status == 404
    assert site.ask("DELETE", f"/api/v1/sessions/{known['session']}").status == 404


def test_the_oldest_picture_of_a_session_gives_way(site: Site) -> None:
    first = uploaded(site)
    session = str(first["session"])
    more = [site.upload(packed(picture(seed)), session).json()["image"] for seed in (2, 3, 4)]
    assert site.post("find", {"image": first["image"]}).status == 404
    assert site.post("find", {"image": more[0]}).status == 200
    assert len(list(site.server.visits.known[session].folder.iterdir())) == 3
    assert site.upload(packed(picture(1)), "nobody").status == 404


def test_sessions_expire(site: Site) -> None:
    known = uploaded(site)
    folder = site.server.visits.known[str(known["session"])].folder
    site.server.visits.known[str(known["session"])].seen -= 60 * site.server.limits.minutes + 1
    until(lambda: not folder.exists())  # the sweep, whom nobody asks
    assert site.post("find", {"image": known["image"]}).status == 404


def test_there_are_so_many_sessions_and_no_more(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = site.server.limits.model_copy(update={"sessions": 3})
    monkeypatch.setattr(site.server.visits, "limits", few)
    for visit in list(site.server.visits.known):
        site.ask("DELETE", f"/api/v1/sessions/{visit}")
    content = packed(picture(1))
    for _ in range(few.sessions):
        assert site.upload(content).status == 201
    refused = site.upload(content)
    assert refused.status == 429
    assert int(refused.headers["retry-after"]) > 0
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(Busy) as busy:
        upload(site.address, tmp_path / "a.png")
    assert busy.value.seconds == 30
    for visit in list(site.server.visits.known):
        site.ask("DELETE", f"/api/v1/sessions/{visit}")


def test_corrections_join_a_data_set_that_reads_back(site: Site, place: Path) -> None:
    known = uploaded(site, 5)
    masks = np.zeros((2, 48, 64), np.bool_)
    masks[0, 3:20, 5:30] = True
    masks[1, 25:40, 8:60] = True
    body = {"image": known["image"], "masks": [runs_of(mask) for mask in masks], "who": "A. Person\n"}
    assert site.post("corrections", body).status == 201
    site.post("corrections", {**body, "masks": body["masks"][:1], "image": uploaded(site, 6)["image"]})
    told = site.get("corrections").json()
    assert told["pictures"] == 2
    data = open_dataset(str(place / "corrections"))
    samples = sorted((load(record) for record in data.records), key=lambda one: -len(one.masks))
    assert [len(sample.masks) for sample in samples] == [2, 1]
    assert {mask.tobytes() for mask in samples[0].masks} == {mask.tobytes() for mask in masks}
    np.testing.assert_array_equal(samples[0].image, picture(5))
    line = json.loads((place / "corrections" / "corrections.jsonl").read_text().splitlines()[0])
    assert (line["who"], len(line["masks"])) == ("A. Person", 2)
    assert line["when"].endswith("+00:00")
    # a second look at the same picture takes the place of the first
    site.post("corrections", {**body, "masks": body["masks"][1:]})
    assert site.get("corrections").json()["pictures"] == 2
    kept = read_mask_pixels(place / "corrections" / "masks" / line["image"])
    np.testing.assert_array_equal(kept > 0, masks[1])
    assert not (place / "corrections" / "masks" / line["masks"][0]).exists()


def test_an_object_within_another_keeps_its_pixels(site: Site, place: Path) -> None:
    known = uploaded(site, 8)
    masks = np.zeros((3, 48, 64), np.bool_)
    masks[0, 3:40, 5:60], masks[1, 10:20, 10:30] = True, True
    told = site.post("corrections", {"image": known["image"], "masks": [runs_of(mask) for mask in masks[:2]]})
    assert told.status == 201
    line = json.loads((place / "corrections" / "corrections.jsonl").read_text().splitlines()[-1])
    kept = [read_mask_pixels(place / "corrections" / "masks" / name) > 0 for name in line["masks"]]
    np.testing.assert_array_equal(kept, [masks[0] & ~masks[1], masks[1]])
    masks[2] = masks[0]
    refused = site.post("corrections", {"image": known["image"], "masks": [runs_of(mask) for mask in masks]})
    assert refused.status == 422
    assert "object 3 wholly under others" in refused.json()["error"]
    assert all((place / "corrections" / "masks" / name).exists() for name in line["masks"]), "nothing was changed"


@pytest.mark.parametrize("counts", [[48 * 64 + 1], [1, 2], [0, 48 * 64, 1], [48 * 64]])
def test_masks_that_are_none_of_the_picture_are_refused(site: Site, counts: list[int]) -> None:
    known = uploaded(site, 7)
    answer = site.post("corrections", {"image": known["image"], "masks": [{"size": [48, 64], "counts": counts}]})
    assert answer.status == 422
    assert "mask" in answer.json()["error"]


def test_masks_are_told_as_coco_reads_them(site: Site) -> None:
    known = uploaded(site)
    one = site.post("segment", {"image": known["image"], "prompts": [{"box": [4, 4, 40, 30]}]}).json()["objects"][0]
    mask = from_rles([one["rle"]], 48, 64)[0]
    rows, columns = np.nonzero(mask)
    assert one["box"] == [columns.min(), rows.min(), columns.max(), rows.max()]


def test_metrics_count_what_was_done(site: Site) -> None:
    known = uploaded(site)
    before = numbers(site)
    site.post("find", {"image": known["image"]})
    site.get("nothing")
    after = numbers(site)
    assert after['specialsam_jobs_total{kind="find"}'] == before.get('specialsam_jobs_total{kind="find"}', 0) + 1
    assert after['specialsam_requests_total{status="404"}'] > before.get('specialsam_requests_total{status="404"}', 0)
    assert after["specialsam_ready"] == 1
    assert site.get("health").json()["status"] == "ok"
    assert site.get("ready").json() == {"ready": True}


def numbers(site: Site) -> dict[str, float]:
    lines = [line for line in site.get("metrics").body.decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def test_the_page_and_the_description_are_served_from_here(site: Site) -> None:
    described = site.get("openapi.json").json()
    assert {"/api/v1/images", "/api/v1/segment", "/api/v1/find"} <= set(described["paths"])
    assert site.ask("GET", "/").headers["content-type"].startswith("text/html")
    for path in ("/docs", "/redoc", "/static/../app.py", "/static/%2e%2e/app.py", "/static/", "/api/v1"):
        assert site.ask("GET", path).status == 404
    assert (
        site.ask("POST", "/api/v1/images", b"--x\r\n", {"Content-Type": "multipart/form-data; boundary=x"}).status
        == 415
    )
    assert site.ask("POST", "/api/v1/images", b"", PICTURE).status == 422
