"""Recipes and published figures. Oracles: the published protocols and tables, copied here by hand as numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from specialsam.core.errors import UsageError
from specialsam.data.views import view_recipe
from specialsam.studies.published import PUBLISHED, how_to_reproduce, published
from specialsam.studies.recipe import (
    BUNDLED,
    STUDIES,
    CamouflageRecipe,
    WoodRecipe,
    flat,
    load_recipe,
    merged,
    recipe_text,
)
from specialsam.synth.mosaic_plan import LADDER


@pytest.mark.parametrize("study", STUDIES)
@pytest.mark.parametrize("name", BUNDLED)
def test_every_bundled_recipe_is_read_and_every_field_has_a_comment(study: str, name: str) -> None:
    text = recipe_text(study, name)
    recipe = load_recipe(study, name)
    assert recipe.study == study
    assert recipe.specialize.fractions == (1.0, 0.0, 0.0)  # the data folder states its splits
    bare = [line for line in text.splitlines() if line.startswith("  ") and ": " in line and "#" not in line]
    body = [line for line in bare if line.split(":")[0].strip().isidentifier()]
    assert not body, f"fields without a comment: {body}"


@pytest.mark.parametrize("study", STUDIES)
def test_the_recipe_names_every_setting_of_training_that_the_protocol_decides(study: str) -> None:
    """Nothing is left to defaults that may move: the keys of a seed recipe's training are those of the settings."""
    given = yaml.safe_load(recipe_text(study, "seed"))["specialize"]["train"]
    decided = set(flat(load_recipe(study)))
    names = {name.removeprefix("specialize.train.") for name in decided if name.startswith("specialize.train.")}
    without_effect = {"lora_rank", "tail_blocks", "correction_share"}  # in these modes, without corrections
    without_effect |= {f"replay_{name}" for name in ("images", "pool", "own", "truth")}  # without replay
    assert names - set(given) <= without_effect
    assert (given["replay"], given["anchor"]) == (0, 0)


@pytest.mark.parametrize(
    ("study", "epochs", "loss", "decay", "prompts"),
    [
        ("wood", 5, "dice", 1e-4, {"center_of_mass": 1.0}),
        ("carpet", 5, "dice", 0.01, {"center_of_mass": 1.0}),
        ("camouflage", 7, "half", 0.01, {"random": 0.5, "box": 0.5}),
    ],
)
def test_seed_recipes_follow_the_published_protocols(
    study: str, epochs: int, loss: str, decay: float, prompts: dict[str, float]
) -> None:
    recipe = load_recipe(study, "seed")
    train = recipe.specialize.train
    assert (train.lr, train.schedule, train.batch, train.masks, train.mode) == (1e-4, "constant", 1, "one", "decoder")
    assert (train.epochs, train.loss, train.weight_decay, train.prompts) == (epochs, loss, decay, prompts)
    assert (train.warmup, train.clip, train.iou_head, train.patience, train.corrections) == (0, 0, 0, 0, 0)
    assert (train.loss_at, train.keep, recipe.specialize.guard.enabled) == ("image", "last", False)
    assert recipe.strategies[0] == recipe.specialize.main_strategy == "center_of_mass"
    assert len(published(study).losses) == epochs


def test_the_revised_recipes_take_the_next_steps_of_the_authors() -> None:
    wood, camouflage = load_recipe("wood", "revised"), load_recipe("camouflage", "revised")
    assert isinstance(wood, WoodRecipe)
    assert isinstance(camouflage, CamouflageRecipe)
    assert wood.data.train >= 5000
    assert wood.data.val == pytest.approx(0.2 * (wood.data.train + wood.data.val))
    assert wood.specialize.train.loss == "half"
    assert "1e-5, at which little is learned" in " ".join(wood.follows.split())  # the one step that is not taken
    assert set(wood.data.difficulties) == set(LADDER)
    for recipe in (wood, camouflage, load_recipe("carpet", "revised")):
        assert recipe.specialize.train.schedule == "cosine"
        assert recipe.specialize.train.keep == "best"
        assert recipe.specialize.train.patience > 0
    assert camouflage.specialize.train.loss == "half_boundary"
    assert camouflage.specialize.views == view_recipe("camouflage")
    assert len(camouflage.specialize.train.prompts) > 2


def test_changes_are_laid_over_groups_and_replace_mixtures() -> None:
    changes = {"data": {"train": 300}, "specialize": {"train": {"prompts": {"box": 1.0}, "epochs": 1}}}
    recipe = load_recipe("wood", "seed", changes)
    assert isinstance(recipe, WoodRecipe)
    assert recipe.data.train == 300
    assert recipe.data.clusters == 5
    assert recipe.specialize.train.epochs == 1
    assert recipe.specialize.train.prompts == {"box": 1.0}
    assert merged({"a": {"b": 1, "c": 2}}, {"a": {"b": 3}, "d": 4}) == {"a": {"b": 3, "c": 2}, "d": 4}


def test_a_recipe_of_ones_own_is_a_file_of_the_same_fields(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(recipe_text("camouflage", "seed").replace("epochs: 7", "epochs: 3"))
    recipe = load_recipe("camouflage", str(path))
    seed = load_recipe("camouflage", "seed")
    changed = {name for name, value in flat(recipe).items() if flat(seed)[name] != value}
    assert changed == {"specialize.train.epochs"}
    with pytest.raises(UsageError, match="of the study wood, got one of 'camouflage'"):
        load_recipe("wood", str(path))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"data": {"trian": 3}}, "data.trian"),
        ({"specialize": {"train": {"lr": -1}}}, "specialize.train.lr"),
        ({"strategies": ["clicks3"]}, "strategies"),
    ],
)
def test_wrong_fields_are_one_line_that_names_them(changes: dict[str, object], match: str) -> None:
    with pytest.raises(UsageError, match=match) as caught:
        load_recipe("wood", "seed", changes)
    assert "\n" not in str(caught.value)


def test_unknown_recipes_and_studies_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="seed or revised"):
        load_recipe("wood", "sead")
    with pytest.raises(UsageError, match="wood, carpet, camouflage"):
        load_recipe("metal")
    path = tmp_path / "list.yaml"
    path.write_text("- 1\n")
    with pytest.raises(UsageError, match="settings by name"):
        load_recipe("wood", str(path))
    path.write_text("a: [")
    with pytest.raises(UsageError, match="expected YAML"):
        load_recipe("wood", str(path))


def test_published_headlines_are_those_of_the_performance_summary() -> None:
    """Oracle: the summary table, in percent points."""
    summary = {"wood": (95.80, 59.52, -36.28), "carpet": (29.43, 36.18, 6.75), "camouflage": (47.52, 66.35, 18.83)}
    for study, (base, tuned, change) in summary.items():
        line = PUBLISHED[study].headline
        assert line.base is not None
        assert line.tuned is not None
        assert line.change is not None
        found = (100 * line.base, 100 * line.tuned, 100 * line.change)
        np.testing.assert_allclose(found, (base, tuned, change), atol=0.011)


def test_the_published_results_table_is_whole() -> None:
    """Three prompts by five metrics; the mean IoU of the table's six rows as published, to four digits."""
    rows = PUBLISHED["camouflage"].scores[1:]
    assert len(rows) == 15
    ious = {row.strategy: (row.base, row.tuned) for row in rows if row.metric == "iou"}
    assert {name: tuple(round(float(v), 4) for v in pair if v is not None) for name, pair in ious.items()} == {
        "center_of_mass": (0.4752, 0.6573),
        "edge": (0.2272, 0.6463),
        "grid4": (0.6080, 0.6681),
    }


@pytest.mark.parametrize("study", STUDIES)
def test_every_study_says_how_its_published_rows_are_measured(study: str) -> None:
    commands = [command for _, command in how_to_reproduce(study, "DATA")]
    zoo = {"wood": "mobile_sam", "carpet": "mobile_sam", "camouflage": "sam_vit_h"}[study]
    assert commands[0] == f"specialsam models fetch {zoo}"
    assert f"study {study} --data DATA --recipe seed --model {zoo}" in commands[1]
    assert published(study).differences
