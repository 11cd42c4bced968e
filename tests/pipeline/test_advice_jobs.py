"""Audit, advise and the guarded, probed main job, end to end on hand-drawn discs with the bundled model.

The oracles: the files that the documents promise, the counts that the data set was drawn with, the split (no test image
may be encoded by the advisor), and a fresh interpolation for what the guard hands on.
"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from disc_data import discs, small
from PIL import Image

from specialsam.advice.guard.mixtures import interpolate
from specialsam.core.errors import UsageError
from specialsam.data.content import digest_file
from specialsam.embeddings import EmbeddingStore
from specialsam.models.load import load_model
from specialsam.models.specialist import read_card
from specialsam.pipeline import advise, tail_pilot
from specialsam.pipeline.advise import advice_text, run_advise
from specialsam.pipeline.audit import findings_text, run_audit
from specialsam.pipeline.job import Request
from specialsam.pipeline.pilots import PilotSettings, ground, joined, sizes
from specialsam.pipeline.plan import plan
from specialsam.pipeline.seeds import run_seeds, seeds_text
from specialsam.pipeline.specialize import run_specialize

IMAGES = 40


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return discs(tmp_path_factory.mktemp("advice") / "data", IMAGES)


@pytest.fixture(scope="module")
def advised(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("advise") / "run"
    return run_advise(
        Request(str(data), "nano", folder), small(train={"epochs": 2, "lr": 3e-4}), PilotSettings(wished=0.05)
    )


def test_all_that_stands_beside_the_largest_pilot_is_of_its_images_and_seed(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With several seeds: the blind decoder and the tail pilot learn from the first one's images, and so does it."""
    learned: list[tuple[str, int, frozenset[str]]] = []
    made: list[Any] = []

    def watch(module: Any, name: str) -> None:
        before = getattr(module, name)

        def call(*given: Any, **more: Any) -> Any:
            answer = before(*given, **more)
            learned.append((name, given[2].seed, frozenset(item.record for item in given[1].train)))
            made.append(answer[0])
            return answer

        monkeypatch.setattr(module, name, call)

    for module, name in ((advise, "tuned_on"), (advise, "blind_decoder"), (tail_pilot, "tuned_on")):
        watch(module, name)
    shown: list[Any] = []
    monkeypatch.setattr(advise, "_write", lambda job, done, curve, largest, areas: shown.append(largest))
    asked = PilotSettings(shares=(0.5,), tail=True, wished=0.05, seeds=2)
    run_advise(Request(str(data), "nano", tmp_path / "run"), small(train={"epochs": 1}), asked)
    first, second, blind, tail = learned
    assert [name for name, _, _ in learned] == ["tuned_on", "tuned_on", "blind_decoder", "tuned_on"]
    assert first[1:] == blind[1:] == tail[1:] != second[1:]
    assert shown == [made[0]]


def test_a_pilot_says_whether_the_frozen_encoder_is_in_the_way(data: Path, tmp_path: Path) -> None:
    asked = PilotSettings(shares=(0.5,), tail=True, wished=0.05)
    settings = small(train={"epochs": 2, "lr": 3e-4})
    found = run_advise(Request(str(data), "nano", tmp_path / "run"), settings, asked)
    finding = next(one for one in found.findings if one.check == "frozen encoder")
    assert finding.numbers["n"] == len(set(found.results.frame["record"]))
    assert finding.numbers["more_low"] <= finding.numbers["more"] <= finding.numbers["more_high"]  # type: ignore[operator]
    assert (finding.level == "warn") == (float(finding.numbers["more_low"]) > 0.02)
    assert "frozen encoder" in (found.folder / "advice.html").read_text()


def test_audit_of_clean_discs_fails_on_their_likeness_and_ease_alone(data: Path, tmp_path: Path) -> None:
    """A disc on noise is a disc on noise: the compared thumbnails look alike, and the base is good at discs."""
    found = run_audit(Request(str(data), "nano", tmp_path / "audit", believed=IMAGES), small())
    failed = [finding.check for finding in found.findings if finding.level == "fail"]
    assert set(failed) <= {"near-duplicates across splits", "room for improvement"}
    assert "near-duplicates across splits" in failed
    assert "Audit of data" in found.page.read_text()
    kept = json.loads((tmp_path / "audit" / "audit.json").read_text())
    assert [line["check"] for line in kept] == [finding.check for finding in found.findings]


def test_audit_counts_what_was_believed_and_shows_suspects(data: Path, tmp_path: Path) -> None:
    """Ten masks are emptied: the audit says 30 of the 40 that the user believes to have."""
    copy = discs(tmp_path / "data", IMAGES)
    for path in sorted((copy / "masks").iterdir())[:10]:
        Image.fromarray(np.zeros((72, 96), np.uint8)).save(path)
    found = run_audit(Request(str(copy), "nano", tmp_path / "audit", believed=IMAGES), small())
    counts = next(finding for finding in found.findings if finding.check == "image counts")
    assert counts.level == "fail"
    assert "30" in counts.says
    assert f"FAIL  image counts: {counts.says}" in findings_text(found.findings)


def test_the_advisor_leaves_its_page_and_never_encodes_a_test_image(data: Path, advised: Any) -> None:
    kept = json.loads((advised.folder / "advice.json").read_text())
    assert kept["decision"] == advised.judgement.decision
    assert kept["decision"] in ("GO", "NO-GO", "UNSURE")
    assert [pilot["n"] for pilot in kept["pilots"]] == sorted({pilot["n"] for pilot in kept["pilots"]})
    assert advised.now.low <= advised.now.gain <= advised.now.high
    assert advised.now.n == len(plan(str(data), (0.7, 0.15, 0.15), 0, None, False).of("train"))
    page = (advised.folder / "advice.html").read_text()
    assert advised.judgement.headline in page
    assert f"page: {advised.folder / 'advice.html'}" in advice_text(advised)
    store = EmbeddingStore.open_existing(advised.folder / "embeddings", load_model("nano").encoder_id)
    layout = plan(str(data), (0.7, 0.15, 0.15), 0, None, False)
    assert all(
        store.key(digest_file(record.image)) in store
        for record in layout.of(
            "train",
        )
    )
    assert not any(store.key(digest_file(record.image)) in store for record in layout.of("test"))


def test_a_second_call_trains_no_pilot_again(data: Path, advised: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_step(*_: Any, **__: Any) -> None:
        raise AssertionError("a finished pilot was trained again")

    monkeypatch.setattr("specialsam.training.loop._step", no_step)
    settings = small(train={"epochs": 2, "lr": 3e-4})
    again = run_advise(Request(str(data), "nano", advised.folder), settings, PilotSettings(wished=0.05))
    assert again.now == advised.now


def test_too_few_images_for_pilots_is_one_line(tmp_path: Path) -> None:
    few = discs(tmp_path / "few", 4)
    with pytest.raises(UsageError, match="expected at least 4 training images for pilots"):
        run_advise(Request(str(few), "nano", tmp_path / "run"), small(), PilotSettings())


def test_pilots_are_nested_and_measured_on_images_that_none_learns_from(data: Path) -> None:
    layout = plan(str(data), (0.7, 0.15, 0.15), 0, None, False)
    train = layout.of("train")
    field = ground(train, {}, PilotSettings(), 0)
    assert {record.id for record in field.pool}.isdisjoint(record.id for record in field.apart)
    counts = sizes(len(train), len(field.pool), PilotSettings())
    chosen = [{record.id for record in joined(field.pool, count, 0)} for count in counts]
    assert all(small < large for small, large in pairwise(chosen))


def test_near_duplicates_stay_on_one_side_of_the_pilots(data: Path) -> None:
    """All training images form one group: nothing can be kept apart from it."""
    train = plan(str(data), (0.7, 0.15, 0.15), 0, None, False).of("train")
    field = ground(train, {record.id: "one" for record in train}, PilotSettings(), 0)
    assert len(field.pool) == len(train)
    assert not field.apart


def test_the_main_job_hands_on_what_the_guard_chose_and_shows_its_probes(data: Path, tmp_path: Path) -> None:
    """The saved weights are those of a fresh interpolation between the base and the tuned weights of the best epoch."""
    settings = small(train={"epochs": 2, "lr": 3e-4}, guard={"retention": "generated", "retention_images": 4}, probes=6)
    folder = tmp_path / "run"
    outcome = run_specialize(Request(str(data), "nano", folder), settings)
    assert outcome is not None
    page = outcome.report.read_text()
    for words in ("What was handed on", "How it takes prompts", "Where it gains and loses", "Checks"):
        assert words in page
    card = read_card(folder / "specialist")
    base, tuned = load_model("nano"), load_model("nano")
    state = torch.load(folder / "training.pt", weights_only=True)
    tuned.sam.load_state_dict(state["best"], strict=False)
    expected = interpolate(base, tuned, card.alpha).sam.state_dict()
    saved = load_model(str(folder / "specialist")).sam.state_dict()
    assert all(torch.equal(saved[name], value) for name, value in expected.items())
    assert (card.tuned == "base") == (card.alpha == 0)


def test_a_ruined_decoder_is_not_handed_on(data: Path, tmp_path: Path) -> None:
    """A learning rate of 0.05 ruins the decoder; with the last epoch kept only the guard stands in the way."""
    settings = small(train={"epochs": 1, "lr": 0.05, "keep": "last", "warmup": 0}, guard={"retention": "none"})
    run_specialize(Request(str(data), "nano", tmp_path / "run"), settings, measured=False)
    card = read_card(tmp_path / "run" / "specialist")
    assert (card.tuned, card.alpha) == ("base", 0)
    assert "The base is kept" in card.note
    base, saved = load_model("nano").sam.state_dict(), load_model(str(tmp_path / "run" / "specialist")).sam.state_dict()
    assert all(torch.equal(saved[name], value) for name, value in base.items())


def test_several_seeds_share_split_and_embeddings_and_end_in_one_table(data: Path, tmp_path: Path) -> None:
    """Oracle: the runs' own comparisons, whose mean over the seeds is the table's gain."""
    found = run_seeds(Request(str(data), "nano", tmp_path / "run"), small(train={"epochs": 1, "lr": 3e-4}), 2)
    single = found.table[(found.table.output == "single") & (found.table.strategy == "interior")].iloc[0]
    own = [pd.read_csv(tmp_path / "run" / f"seed-{seed}" / "comparison.csv") for seed in (0, 1)]
    gains = [
        float(table[(table.output == "single") & (table.strategy == "interior") & (table.metric == "iou")].gain.iloc[0])
        for table in own
    ]
    assert single["gain"] == pytest.approx(np.mean(gains), abs=1e-6)
    assert (single["lowest"], single["highest"]) == pytest.approx((min(gains), max(gains)), abs=1e-6)
    assert single["seeds"] == 2
    assert "interior" in seeds_text(found.table)
    assert len(list((tmp_path / "run" / "embeddings").rglob("*.safetensors"))) == 1, "encoded once for all seeds"
    with pytest.raises(UsageError, match="at least 2 seeds"):
        run_seeds(Request(str(data), "nano", tmp_path / "one"), small(), 1)
