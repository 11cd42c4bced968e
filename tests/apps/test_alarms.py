"""Alarms with a promise. Oracles: `find` on the same pictures, the conformal threshold of the scores, and the rule that
a rate is enough exactly where a threshold for it can be set.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_models import broken, finder, photographs, picture, refused, specialist

from heard import Heard
from specialsam.apps.alarms import _least, calibrate, drifted
from specialsam.apps.segment import Order
from specialsam.apps.session import Asking, open_session
from specialsam.apps.spot import spot
from specialsam.core.console import using
from specialsam.core.errors import UsageError
from specialsam.metrics.conformal import conformal_threshold, drift
from specialsam.models.finder import find
from specialsam.models.specialist import read_card

WRONG_USE = 2
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def animals(tmp_path: Path) -> Path:
    return specialist(tmp_path / "animals", finder(), seed=2)


@pytest.fixture
def nothing(tmp_path: Path) -> Path:
    return photographs(tmp_path / "nothing", *(f"{number}.png" for number in range(9)))


def test_the_scores_of_pictures_are_kept_in_the_card(animals: Path, nothing: Path) -> None:
    """Oracle: `find` of each picture, in the order of the names; all else of the folder stays as it was."""
    before, files = read_card(animals), {path.name: path.read_bytes() for path in animals.glob("*.safetensors")}
    said = calibrate(animals, [nothing])
    opened = open_session(animals)
    assert opened.parts.finder is not None
    alone = [find(opened.parts.finder, opened.segmenter, opened.segmenter.encode(picture(n))).score for n in range(9)]
    card = read_card(animals)
    assert card.alarm.good_scores == alone
    assert card.alarm.source == "9 pictures of nothing"
    assert card.model_copy(update={"alarm": before.alarm}) == before
    assert {path.name: path.read_bytes() for path in animals.glob("*.safetensors")} == files
    assert said == "9 pictures of nothing: enough for a share of false alarms of 10.00% and above"
    assert opened.threshold(Asking(false_alarms=0.1)) > max(alone) == conformal_threshold(alone, 0.1)


def test_calibrating_again_forgets_the_earlier_pictures(animals: Path, nothing: Path, tmp_path: Path) -> None:
    calibrate(animals, [nothing])
    calibrate(animals, [photographs(tmp_path / "other", "1.png", "2.png", first=30)])
    assert len(read_card(animals).alarm.good_scores) == 2


def test_the_very_pictures_of_a_promise_show_nothing(animals: Path, nothing: Path, tmp_path: Path) -> None:
    calibrate(animals, [nothing])
    answers = list(spot(open_session(animals), Order([nothing], tmp_path / "out"), Asking(false_alarms=0.1)).answered)
    assert [len(answer.objects) for answer in answers] == [0] * 9
    with pytest.raises(UsageError, match=r"expected at least 19 good images for a false-alarm rate of 0.05, got 9"):
        spot(open_session(animals), Order([nothing], tmp_path / "out"), Asking(false_alarms=0.05))


@given(st.integers(1, 30_000))
def test_a_share_that_is_said_to_be_enough_is(count: int) -> None:
    """It is rounded up, and no more than to a hundredth of a percent."""
    rate = float(f"{_least(count):.2%}".rstrip("%")) / 100
    conformal_threshold(np.zeros(count), rate)
    assert rate >= 1 / (count + 1) - 1e-12
    assert rate <= 1 / (count + 1) + 0.0001


def test_pictures_that_cannot_be_read_are_left_out_and_told(animals: Path, nothing: Path) -> None:
    said_of = broken(nothing)
    os.mkfifo(nothing / "pipe.jpg")
    heard = Heard()
    with using(heard):
        said = calibrate(animals, [nothing])
    assert said.startswith("9 pictures of nothing: ")
    assert len(read_card(animals).alarm.good_scores) == 9
    left_out = [line for line in heard.lines if line.startswith("left out: ")]
    assert len(left_out) == len(said_of) + 1
    for name in (*said_of, "pipe.jpg"):
        assert sum(f"/{name}: " in line for line in left_out) == 1


def test_nothing_to_calibrate_on(animals: Path, tmp_path: Path) -> None:
    before = (animals / "specialist.json").read_bytes()
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="photograph"):
        calibrate(animals, [tmp_path / "empty"])
    said_of = broken(tmp_path / "empty")
    with pytest.raises(UsageError, match=rf"expected readable pictures, got {len(said_of)} that are not"):
        calibrate(animals, [tmp_path / "empty"])
    assert (animals / "specialist.json").read_bytes() == before


def test_models_that_have_no_finder(nothing: Path, tmp_path: Path) -> None:
    blind = specialist(tmp_path / "blind", None)
    for folder in (blind, tmp_path / "base"):
        expected = rf"expected a specialist with a finder in {re.escape(str(folder))}, got one without; specialize anew"
        with pytest.raises(UsageError, match=expected):
            calibrate(folder, [nothing])


@pytest.mark.skipif(sys.platform != "linux", reason="other systems take no such names")
def test_folders_of_odd_names(animals: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The card is JSON in UTF-8, and says where its pictures were from, also where that is the folder one stands in."""
    odd = photographs(tmp_path / "caf\udce9", "1.png", "2.png", "3.png")
    calibrate(animals, [odd])
    assert read_card(animals).alarm.source == "3 pictures of caf\\xe9"
    monkeypatch.chdir(photographs(tmp_path / "here", "1.png"))
    calibrate(animals, [Path(), odd])
    assert read_card(animals).alarm.source == "4 pictures of here, caf\\xe9"


def test_recent_pictures_are_compared_with_those_of_the_promise(animals: Path) -> None:
    """Oracle: the test itself, on the same scores."""
    card = read_card(animals)
    with pytest.raises(UsageError, match="got one without; calibrate it first"):
        drifted(card, [0.1] * 30)
    good = np.random.default_rng(0).uniform(0, 0.2, 50).tolist()
    card = card.model_copy(update={"alarm": card.alarm.model_copy(update={"good_scores": good})})
    alike, apart = np.random.default_rng(1).uniform(0, 0.2, (2, 40)).tolist()
    apart = [score + 0.1 for score in apart]
    assert drifted(card, iter(alike)) == drift(good, alike)
    assert not drifted(card, alike).drifted
    assert drifted(card, apart).drifted
    assert not drifted(card, apart[:5]).drifted, "too few to tell"


def test_the_command(call: Call, animals: Path, nothing: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    refused(call("spot", nothing, "-o", out, "-m", animals, "--false-alarms", "10%"), WRONG_USE, "specialsam calibrate")
    code, said, err = call("calibrate", animals, nothing, "--device", "cpu")
    assert (code, err) == (0, "")
    assert said.strip() == "9 pictures of nothing: enough for a share of false alarms of 10.00% and above"
    code, said, err = call("spot", nothing, "-o", out, "-m", animals, "--false-alarms", "10%")
    assert (code, err) == (0, "")
    assert "9 pictures (0 from before): 0 objects" in said
    assert json.loads((out / "run.json").read_text())["threshold"] > max(read_card(animals).alarm.good_scores)
    again = ("spot", nothing, "-o", out, "-m", animals, "--false-alarms")
    refused(call(*again, "1%"), WRONG_USE, "at least 99 good images")
    refused(call(*again, "10%", "--tiles", "16"), WRONG_USE, "leave out --tiles")
    refused(call("calibrate", "nano", nothing), WRONG_USE, "expected a specialist with a finder")
    refused(call("calibrate", animals, tmp_path / "nowhere"), WRONG_USE, "nowhere", "check the name")
