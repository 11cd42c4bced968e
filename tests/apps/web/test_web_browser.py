"""The page in Debian's chromium: what a person does by mouse and by keys, against what the API and the disk say."""

from __future__ import annotations

import csv
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from line_parts import event
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from small_models import finder, picture, specialist
from web_parts import Site, listening, packed, runs_of, until

from specialsam.apps.line.decision import Judged
from specialsam.apps.line.live import Live
from specialsam.apps.line.outbox import FILE, Outbox
from specialsam.apps.line.snapshots import marked_jpeg, write_snapshot
from specialsam.apps.web.limits import Limits
from specialsam.apps.web.page_api import QUIET
from specialsam.apps.web.server import ServeOrder
from specialsam.core.masks import from_rles
from specialsam.data.images import read_mask_pixels
from specialsam.report.palette import DARK, LIGHT, css_variables

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="chromium and chromium-driver are not installed")
TUNE = (
    "train.epochs=1",
    "train.replay_pool=4",
    "finder.epochs=1",
    "finder.grid=0",
    "probes=0",
    "guard.retention_images=4",
    "duplicates=false",
    "evaluate.strategies=[interior]",
    "evaluate.groups=[overlap]",
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("browsed")
    specialist(folder / "animals", finder(), seed=3)
    run = folder / "runs" / "older"
    run.mkdir(parents=True)
    (run / "run.json").write_text(json.dumps({"identity": {"job": "specialize", "model": "nano", "source": "/x/fish"}}))
    head = "strategy,output,metric,base,tuned,gain,low,high,n"
    (run / "comparison.csv").write_text(f"{head}\ninterior,single,iou,0.5,0.62,0.12,0.04,0.2,30\n")
    (run / "report.html").write_text("<title>r</title><p id=told>quiet</p><script>told.textContent='loud'</script>")
    (folder / "photo.png").write_bytes(packed(picture(1)))
    return folder


@pytest.fixture(scope="module")
def site(place: Path) -> Iterator[Site]:
    order = ServeOrder(
        str(place / "base"), place / "animals", place / "runs", place / "set", place / "line", TUNE, device="cpu"
    )
    with listening(order, Limits()) as served:
        yield served


@pytest.fixture(scope="module")
def chrome(place: Path) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for switch in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--window-size=1280,900",
    ):
        options.add_argument(switch)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    made = webdriver.Chrome(options, webdriver.ChromeService(str(DRIVER)))
    saved = {"behavior": "allow", "downloadPath": str(place / "saved")}
    made.execute_cdp_cmd("Browser.setDownloadBehavior", saved)
    try:
        yield made
    finally:
        made.quit()


@pytest.fixture
def page(chrome: webdriver.Chrome, site: Site, place: Path) -> Iterator[webdriver.Chrome]:
    """The page with a photograph open; at the end nothing may have been complained about, policies least of all."""
    chrome.get("about:blank")  # from the page itself its address would not load it anew; a refresh may meet its loading
    chrome.get(f"{site.address}/#spot")
    at(chrome, "file").send_keys(str(place / "photo.png"))
    says(chrome, "ready after")
    yield chrome
    wrong = [line["message"] for line in chrome.get_log("browser") if line["level"] == "SEVERE"]
    assert not wrong


def at(chrome: webdriver.Chrome, name: str) -> WebElement:
    return chrome.find_element(By.ID, name)


def says(chrome: webdriver.Chrome, words: str, seconds: float = 20.0) -> None:
    until(lambda: words in at(chrome, "status").text, seconds)


def point(chrome: webdriver.Chrome, name: str = "spot-canvas", *keys: str) -> None:
    """Focus a canvas and press keys on it: the cursor begins in the picture's middle."""
    chrome.execute_script("arguments[0].focus()", at(chrome, name))
    ActionChains(chrome).send_keys(*(keys or (Keys.ENTER,))).perform()


def pixels(chrome: webdriver.Chrome, name: str = "spot-canvas") -> str:
    return str(chrome.execute_script("return document.getElementById(arguments[0]).toDataURL()", name))


def saved(place: Path, name: str) -> Path:
    path = place / "saved" / name
    path.unlink(missing_ok=True)
    return path


def middle(site: Site, *more: tuple[float, float]) -> dict[str, Any]:
    """What the API answers to a click in the middle of the photograph, and further ones."""
    known = site.upload(packed(picture(1))).json()
    return dict(site.post("segment", {"image": known["image"], "prompts": [{"points": [(32, 24), *more]}]}).json())


def test_keys_point_and_what_is_saved_is_what_the_model_said(page: webdriver.Chrome, site: Site, place: Path) -> None:
    point(page)
    says(page, "1 object in")
    told = middle(site)["objects"][0]
    mask = from_rles([told["rle"]], 48, 64)[0]
    files = {name: saved(place, f"photo-{name}") for name in ("mask.png", "coco.json", "crop.png")}
    for name in ("save-mask", "save-coco", "save-crop"):
        at(page, name).click()
    until(lambda: all(path.exists() for path in files.values()))
    np.testing.assert_array_equal(read_mask_pixels(files["mask.png"])[..., 0] > 127, mask)
    coco = json.loads(files["coco.json"].read_text())
    assert coco["annotations"][0]["segmentation"] == told["rle"]
    assert coco["annotations"][0]["area"] == mask.sum()
    rows, columns = np.nonzero(mask)
    margin = round(0.1 * max(np.ptp(rows), np.ptp(columns)))
    top, left = max(0, rows.min() - margin), max(0, columns.min() - margin)
    crop = cv2.imread(str(files["crop.png"]))[..., ::-1]
    np.testing.assert_array_equal(crop, picture(1)[top : top + crop.shape[0], left : left + crop.shape[1]])


def test_a_click_a_right_click_a_box_and_find(page: webdriver.Chrome, site: Site) -> None:
    asked = site.server.desk.numbers.done

    def more(work: Any, kind: str = "ask") -> None:
        before, shown = asked[kind], pixels(page)
        work()
        until(lambda: asked[kind] > before)
        until(lambda: pixels(page) != shown)

    canvas = at(page, "spot-canvas")
    more(lambda: ActionChains(page).move_to_element_with_offset(canvas, -40, 10).click().perform())
    more(lambda: ActionChains(page).move_to_element_with_offset(canvas, 60, 20).context_click().perform())
    more(
        lambda: (
            ActionChains(page)
            .move_to_element_with_offset(canvas, -90, -60)
            .click_and_hold()
            .move_by_offset(120, 90)
            .release()
            .perform()
        )
    )
    more(lambda: at(page, "undo").click())
    more(lambda: at(page, "find").click(), "find")
    known = site.upload(packed(picture(1))).json()
    found = site.post("find", {"image": known["image"]}).json()["objects"]
    says(page, f"{len(found)} object")
    until(lambda: at(page, "count").text == str(len(found)))
    point(page, "spot-canvas", "c")
    until(lambda: not at(page, "answer").is_displayed())


def test_the_slider_shows_base_and_specialist(page: webdriver.Chrome, site: Site) -> None:
    point(page)
    says(page, "1 object in")
    assert middle(site)["beside"][0]["rle"] != middle(site)["objects"][0]["rle"]
    seen = {pixels(page)}
    slider = at(page, "slider")
    for key in (Keys.HOME, Keys.END):
        slider.send_keys(key)
        seen.add(pixels(page))
    assert len(seen) == 3
    assert "share" in at(page, "agree").text


def test_masks_travel_between_the_page_and_python(page: webdriver.Chrome) -> None:
    """Run lengths of the page's own code against pycocotools'."""
    rng = np.random.default_rng(0)
    from specialsam.core.masks import to_rle

    for height, width in ((1, 1), (5, 9), (300, 200)):
        mask = cv2.resize(rng.random((4, 4)).astype(np.float32), (width, height)) > 0.5
        script = """const [rle, done] = arguments;
          import('/static/rle.js').then((m) => { const mask = m.decoded(rle);
            done([Array.from(mask), m.countsOf(mask, ...rle.size), m.compressed(m.countsOf(mask, ...rle.size))]); });"""
        rle = to_rle(mask)
        flat, counts, text = page.execute_async_script(script, rle)
        np.testing.assert_array_equal(np.reshape(flat, (height, width)), mask)
        assert counts == runs_of(mask)["counts"]
        assert text == rle["counts"]


def test_correct_tune_use_and_go_back(page: webdriver.Chrome, site: Site, place: Path) -> None:
    for seed in range(20, 30):  # pictures that others corrected before
        known = site.upload(packed(picture(seed))).json()
        mask = np.asarray(picture(seed)[..., 0] > 150)
        assert site.post("corrections", {"image": known["image"], "masks": [runs_of(mask)]}).status == 201
        site.ask("DELETE", f"/api/v1/sessions/{known['session']}")
    point(page)
    says(page, "1 object in")
    at(page, "to-correct").click()
    page.find_element(By.CSS_SELECTOR, "[value=brush] + span").click()
    point(page, "tune-canvas", *[Keys.ARROW_LEFT] * 3, Keys.SPACE)
    page.find_element(By.CSS_SELECTOR, "[name=tune-mode][value=add] + span").click()
    before = site.server.desk.numbers.done["ask"]
    point(page, "tune-canvas", *[Keys.ARROW_LEFT] * 3, Keys.ENTER)  # refines what Spot asked for, and keeps the brush's
    until(lambda: site.server.desk.numbers.done["ask"] > before)
    until(at(page, "accept").is_enabled)
    painted = from_rles([middle(site, (32 - 3 * 0.64, 24))["objects"][0]["rle"]], 48, 64)[0]
    radius = 12 / 400 * 64
    rows, columns = np.mgrid[:48, :64]
    painted |= np.hypot(rows - 24, columns - (32 - 3 * 0.64)) <= radius - 0.71  # surely within the disc
    point(page, "tune-canvas", "a")
    says(page, "1 object accepted")
    at(page, "who").send_keys("A. Person")
    at(page, "keep").click()
    says(page, "holds 11 pictures")
    line = json.loads((place / "set" / "corrections.jsonl").read_text().splitlines()[-1])
    assert line["who"] == "A. Person"
    assert "A. Person" in at(page, "recent").text
    kept = read_mask_pixels(place / "set" / "masks" / line["masks"][0]) > 0
    assert kept[painted].all()
    assert 0 <= kept.sum() - painted.sum() < 30

    at(page, "tune").click()
    says(page, "tuning has begun")
    until(lambda: "images with objects" in at(page, "lines").text, 60)
    says(page, "a new specialist is ready", 120)
    run = place / "runs" / "tuned-1"
    gain = next(csv.DictReader((run / "comparison.csv").open()))
    assert f"{100 * float(gain['base']):.1f} \u2192 {100 * float(gain['tuned']):.1f}" in at(page, "offer").text
    assert json.loads((run / "specialist" / "specialist.json").read_text())["note"] in at(page, "offer").text
    assert (run / "report.html").exists()
    assert (place / "runs" / "embeddings").is_dir()
    used = site.server.catalogue.used
    at(page, "use-new").click()
    says(page, "answers from now on")
    assert site.server.catalogue.used == "m2"
    back = page.find_elements(By.XPATH, "//ul[@id='models']//button[text()='Go back to it']")
    back[0].click()
    until(lambda: site.server.catalogue.used == used)


SLOWLY = """
const told = window.fetch;
window.fetch = (where, how) => String(where).includes("/segment") || String(where).includes("/find")
  || String(where).includes("/corrections")
  ? told(where, how).then((answer) => new Promise((done) => setTimeout(() => done(answer), arguments[0])))
  : told(where, how);
"""
"""Holds each answer of the model, and to a save, back for some milliseconds."""


def opened(chrome: webdriver.Chrome, place: Path, name: str, seed: int) -> None:
    """Choose another picture of the same size."""
    (place / name).write_bytes(packed(picture(seed)))
    at(chrome, "file").send_keys(str(place / name))
    until(lambda: name in at(chrome, "drop").text)


def test_a_late_answer_is_no_answer_to_another_picture(page: webdriver.Chrome, place: Path) -> None:
    page.execute_script(SLOWLY, 1500)
    point(page)
    opened(page, place, "other.png", 2)
    time.sleep(2.5)
    assert not at(page, "answer").is_displayed(), "nobody asked about this one"
    at(page, "tab-tune").click()
    until(at(page, "tune-canvas").is_displayed)
    point(page, "tune-canvas")
    at(page, "tab-spot").click()
    opened(page, place, "third.png", 3)
    at(page, "tab-tune").click()
    time.sleep(2.5)
    assert not at(page, "accept").is_enabled(), "no mask was made on this one"


def test_a_mask_is_accepted_when_the_last_click_is_answered(page: webdriver.Chrome) -> None:
    at(page, "tab-tune").click()
    until(at(page, "tune-canvas").is_displayed)
    point(page, "tune-canvas")
    until(at(page, "accept").is_enabled)
    page.execute_script(SLOWLY, 1500)
    point(page, "tune-canvas", *[Keys.ARROW_LEFT] * 3, Keys.ENTER)
    point(page, "tune-canvas", "a")
    says(page, "still answering")
    assert not at(page, "accept").is_enabled()
    until(at(page, "accept").is_enabled)
    point(page, "tune-canvas", "a")
    says(page, "1 object accepted")
    time.sleep(0.5)
    assert not at(page, "accept").is_enabled(), "nothing comes after it"


def test_what_was_saved_stays_with_what_is_accepted_later(page: webdriver.Chrome, place: Path) -> None:
    """A further save takes the place of the first, so that it must hold the first one's objects, too."""
    at(page, "tab-tune").click()
    until(at(page, "tune-canvas").is_displayed)
    page.find_element(By.CSS_SELECTOR, "[value=brush] + span").click()
    point(page, "tune-canvas", Keys.SPACE)
    point(page, "tune-canvas", "a")
    says(page, "1 object accepted")
    at(page, "keep").click()
    until(lambda: at(page, "keep").text == "1 object saved")
    assert not at(page, "keep").is_enabled()
    point(page, "tune-canvas", *[Keys.ARROW_LEFT] * 9, Keys.SPACE)
    point(page, "tune-canvas", "a")
    says(page, "2 objects accepted")
    assert at(page, "keep").text == "Save 2 objects to the data set"
    page.execute_script(SLOWLY, 1500)
    at(page, "keep").click()
    point(page, "tune-canvas", *[Keys.ARROW_UP] * 9, Keys.SPACE)
    point(page, "tune-canvas", "a")
    says(page, "3 objects accepted")
    says(page, "saved; the data set")
    assert at(page, "keep").text == "Save 3 objects to the data set"
    line = json.loads((place / "set" / "corrections.jsonl").read_text().splitlines()[-1])
    assert len(line["masks"]) == 2
    at(page, "tab-spot").click()
    point(page)
    says(page, "1 object in")
    at(page, "to-correct").click()
    until(at(page, "accept").is_enabled)
    point(page, "tune-canvas", "a")
    says(page, "4 objects accepted")


def test_corrections_outlast_their_session(page: webdriver.Chrome, site: Site) -> None:
    """Painting asks the server nothing, so that long painting ends the session."""
    at(page, "tab-tune").click()
    until(at(page, "tune-canvas").is_displayed)
    page.find_element(By.CSS_SELECTOR, "[value=brush] + span").click()
    point(page, "tune-canvas", Keys.SPACE)
    until(at(page, "accept").is_enabled)
    point(page, "tune-canvas", "a")
    says(page, "1 object accepted")
    for visit in list(site.server.visits.known):
        site.ask("DELETE", f"/api/v1/sessions/{visit}")
    at(page, "keep").click()
    says(page, "saved; the data set")
    at(page, "tab-spot").click()
    for visit in list(site.server.visits.known):
        site.ask("DELETE", f"/api/v1/sessions/{visit}")
    point(page)
    says(page, "1 object in")
    page.get_log("browser")  # the browser itself logs each 404, which is what was asked for


def test_the_line_is_watched(page: webdriver.Chrome, site: Site, place: Path) -> None:
    at(page, "tab-line").click()
    until(lambda: "has shown no picture yet" in at(page, "line-blind").text)
    folder = place / "line"
    box = Outbox(folder / FILE, [])
    live = Live(folder)
    (folder / "run.json").write_text(json.dumps({"identity": {"job": "J1", "roll": "R7", "camera": "top"}}))
    write_snapshot(folder, "snapshots/id-0.jpg", marked_jpeg(picture(1), [(3, 3, 20, 20)]))
    mask = np.zeros((1, 48, 64), np.bool_)
    mask[0, 5:20, 5:30] = True
    judged = Judged(0.9, mask, np.array([0.9], np.float32))
    live.show(picture(1), judged, 0.5, {"pictures": 7, "p50": 0.05, "p95": 0.08, "fps": 9.0, "metres": 2.0})
    box.put([event(0, snapshot="snapshots/id-0.jpg")], {})
    until(lambda: page.execute_script("return document.getElementById('live').naturalWidth") == 64, QUIET - 1)
    until(lambda: len(page.find_elements(By.CSS_SELECTOR, "#events tbody tr")) == 1)
    assert "top, job J1, roll R7" in at(page, "line-title").text
    assert "80 ms" in at(page, "line-facts").text
    before = site.server.streams
    assert before == 1
    box.put([event(1, severity="critical")], {})
    until(lambda: len(page.find_elements(By.CSS_SELECTOR, "#events tbody tr")) == 2)
    assert len(page.find_elements(By.CSS_SELECTOR, "#roll .major, #roll .critical")) >= 2
    assert page.find_elements(By.CSS_SELECTOR, "#alarms .bar")
    page.find_element(By.CSS_SELECTOR, "#events button").click()
    until(lambda: page.execute_script("return document.getElementById('snapshot-picture').naturalWidth") == 64)
    ActionChains(page).send_keys(Keys.ESCAPE).perform()
    at(page, "tab-spot").click()
    until(lambda: site.server.streams == 0)  # who leaves ends the stream
    box.close()


def test_runs_are_compared_and_their_pages_run_nothing(page: webdriver.Chrome) -> None:
    at(page, "tab-runs").click()
    until(lambda: "older" in at(page, "runs").text)
    row = next(row for row in page.find_elements(By.CSS_SELECTOR, "#runs tbody tr") if "older" in row.text)
    for text in ("50.0", "62.0", "+12.0", "+4.0 to +20.0", "30"):
        assert text in row.text
    row.find_element(By.TAG_NAME, "button").click()
    page.switch_to.frame(at(page, "report-frame"))
    until(lambda: bool(page.find_elements(By.ID, "told")))
    time.sleep(0.2)
    assert at(page, "told").text == "quiet"
    page.switch_to.default_content()
    page.get_log("browser")  # where the refused script is named, as it should be


def test_tabs_go_by_keys_and_everything_has_a_name(page: webdriver.Chrome) -> None:
    at(page, "tab-spot").send_keys(Keys.ARROW_RIGHT)
    assert page.switch_to.active_element.get_attribute("id") == "tab-tune"
    assert at(page, "panel-tune").is_displayed()
    page.switch_to.active_element.send_keys(Keys.END)
    assert at(page, "panel-runs").is_displayed()
    page.execute_script("for (const one of document.querySelectorAll('[hidden]')) one.hidden = false")
    nodes = page.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    acting = ("button", "textbox", "slider", "combobox", "radio", "tab", "link", "application", "image", "region")
    roles = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if "role" in node]
    named = [(role, name) for role, name in roles if role in acting]
    assert len(named) > 30
    assert [role for role, name in named if not name.strip()] == ["image"] * sum(
        role == "image" and not name.strip() for role, name in named
    )
    assert sum(role == "image" and not name.strip() for role, name in named) <= 1  # the snapshot that is not open


@pytest.mark.parametrize("width", [400, 1280])
def test_nothing_is_wider_than_the_page(page: webdriver.Chrome, width: int) -> None:
    screen = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    point(page)
    says(page, "object")
    for name in ("spot", "tune", "line", "runs"):
        at(page, f"tab-{name}").click()
        time.sleep(0.1)
        assert page.execute_script("return document.documentElement.scrollWidth") <= width
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_the_page_wears_the_colours_of_the_reports() -> None:
    style = (Path(__file__).parents[3] / "src/specialsam/apps/web/static/style.css").read_text()
    for colours in (LIGHT, DARK):
        assert css_variables(colours) in style
