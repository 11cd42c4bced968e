"""Sharing. Oracle: what a stand-in of the hub's API got and gives, and the specialist folder that was pushed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hub_stand_in import Hub, Repository, hub
from small_models import finder, specialist

from specialsam.apps.model_card import Terms, check_terms, write_card_page
from specialsam.core.errors import UsageError
from specialsam.models.specialist import SpecialistCard, check_files, read_card, write_card

HEAD = "strategy,output,metric,base,tuned,gain,low,high,n,split\n"
LINES = "interior,single,iou,0.454,0.564,0.11,0.081,0.139,200,test\nbox,single,mae,0.4,0.3,0.1,0.1,0.1,200,test\n"


@pytest.fixture
def standing() -> Iterator[Hub]:
    with hub() as state:
        yield state


def made(folder: Path, **fields: Any) -> Path:
    """A specialist folder within a run that has scores."""
    made_at = specialist(folder / "run" / "specialist", finder(), seed=1)
    card = read_card(made_at).model_copy(update={"base": "sam_vit_b", "data_licence": "CC BY 4.0"} | fields)
    write_card(made_at, card)
    (folder / "run" / "comparison.csv").write_text(HEAD + LINES)
    return made_at


@pytest.fixture
def run(standing: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Any) -> Any:
    """The command line with the stand-in as its hub; (exit code, all that was said)."""
    from huggingface_hub import constants

    settings = {"HF_HUB_OFFLINE": False, "HF_HUB_DISABLE_XET": True, "HF_HUB_CACHE": str(tmp_path / "hf")}
    template = standing.address + "/{repo_id}/resolve/{revision}/{filename}"
    for name, value in {**settings, "ENDPOINT": standing.address, "HUGGINGFACE_CO_URL_TEMPLATE": template}.items():
        monkeypatch.setattr(constants, name, value)

    def ran(*arguments: object, token: str = standing.token) -> tuple[int, str]:
        monkeypatch.setenv("HF_TOKEN", token)
        code, out, err = call(*arguments)
        assert token not in out + err
        return code, out + err

    return ran


def test_what_was_pushed_is_pulled_and_is_the_same(standing: Hub, run: Any, tmp_path: Path) -> None:
    folder = made(tmp_path)
    (folder / "notes.txt").write_text("not for others")
    code, said = run("push", folder, "me/animals")
    assert code == 0, said
    kept = standing.repositories["me/animals"]
    assert kept.private
    assert set(kept.files) - {".gitattributes"} == {
        "README.md",
        "LICENSE",
        "specialist.json",
        "model.safetensors",
        "finder.safetensors",
    }
    assert b"Apache License" in kept.files["LICENSE"]
    page = kept.files["README.md"].decode()
    front = yaml.safe_load(page.split("---")[1])
    assert front["base_model"] == "facebook/sam-vit-base"
    assert front["library_name"] == "specialsam"
    assert "+11.0 (+8.1 to +13.9) | 200" in page

    code, said = run("pull", "me/animals", "-o", tmp_path / "got")
    assert code == 0, said
    assert check_files(tmp_path / "got") == read_card(folder)
    for name in ("model.safetensors", "finder.safetensors"):
        assert (tmp_path / "got" / name).read_bytes() == (folder / name).read_bytes()
    assert not list(tmp_path.glob(".got*"))
    code, said = run("pull", "me/animals", "-o", tmp_path / "got")
    assert code == 2
    assert "expected a new folder" in said


@pytest.mark.parametrize("how", ["cut", "other tensors", "no specialist"])
def test_what_does_not_come_whole_leaves_nothing(standing: Hub, run: Any, tmp_path: Path, how: str) -> None:
    folder, other = made(tmp_path), specialist(tmp_path / "other", None, seed=2)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    if how == "cut":
        standing.cut = "model.safetensors"
    if how == "other tensors":
        files["model.safetensors"] = (other / "model.safetensors").read_bytes()
    if how == "no specialist":
        files = {"README.md": b"# something else"}
    standing.repositories["me/animals"] = Repository(True, files)
    code, said = run("pull", "me/animals", "-o", tmp_path / "got")
    assert code == 1, said
    assert len([line for line in said.splitlines() if line.startswith("error: expected")]) == 1, said
    assert not (tmp_path / "got").exists()
    assert not list(tmp_path.glob(".got*"))


def test_refusals_of_the_hub_are_one_line(standing: Hub, run: Any, tmp_path: Path) -> None:
    folder = made(tmp_path)
    standing.repositories["me/open"] = Repository(private=False)
    for arguments, token, words in (
        (("pull", "me/nothing", "-o", tmp_path / "got"), standing.token, "the hub has no me/nothing"),
        (("push", folder, "me/animals"), "hf_another", "hf auth login"),
        (("push", folder, "no id at all"), standing.token, "expected a hub id as owner/name"),
        (("push", folder, "me/open"), standing.token, "expected me/open to be private, it is public"),
    ):
        code, said = run(*arguments, token=token)
        assert code in (1, 2)
        (line,) = [line for line in said.splitlines() if line.startswith("error: ")]
        assert words in line
    assert standing.repositories["me/open"].files == {}


def test_a_hub_that_is_away_is_one_line(standing: Hub, run: Any, tmp_path: Path, monkeypatch: Any) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    code, said = run("push", made(tmp_path), "me/animals")
    assert code == 1
    assert "cannot reach the hub for me/animals" in said


def card(**fields: Any) -> SpecialistCard:
    told = {"name": "a", "base": "nano", "base_encoder_id": "e", "base_decoder_id": "d", "side": 64, "tuned": "decoder"}
    return SpecialistCard(**(told | {"data_licence": "CC BY 4.0"} | fields))


@pytest.mark.parametrize(
    ("fields", "terms", "words"),
    [
        ({"data_licence": "CC BY-NC-SA 4.0"}, Terms(), "learned from data under 'CC BY-NC-SA 4.0'"),
        ({"data_licence": "research use"}, Terms(), "--may-share"),
        ({"data_licence": "unknown, for research"}, Terms(), "--may-share"),
        ({"data_licence": "CC BY, non commercial use only"}, Terms(), "--may-share"),
        ({"data_licence": "cc-by-nc4.0"}, Terms(), "--may-share"),
        ({"data_licence": "MIT for teaching only"}, Terms(), "--may-share"),
        ({"data_licence": "CC BY 4.0; no derivatives"}, Terms(), "--may-share"),
        ({"data_licence": "unknown"}, Terms(), "state it with --data-licence"),
        ({"data_licence": "unknown"}, Terms(data_licence="ours"), "--may-share"),
        ({"data_licence": "CC BY-NC-SA 4.0"}, Terms(data_licence="CC0"), "that the specialist's data state"),
        ({"base": "/home/me/base"}, Terms(), "expected a base that others can get"),
        ({"base": "me/base"}, Terms(), "state it: --base-licence"),
    ],
)
def test_what_may_not_be_shared_is_refused(fields: dict[str, Any], terms: Terms, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_terms(card(**fields), terms)
    assert words in str(caught.value)


@pytest.mark.parametrize("licence", ["CC0 1.0", "CC BY 4.0", "CC-BY-SA-4.0", "public domain", "MIT", "ODbL 1.0"])
def test_free_data_may_be_shared(licence: str) -> None:
    assert check_terms(card(data_licence=licence), Terms())[0].data_licence == licence


def test_who_says_that_they_may_is_believed_and_quoted() -> None:
    told, base_licence = check_terms(card(data_licence="research use"), Terms(may_share=True))
    assert (told.data_licence, base_licence) == ("research use", "Apache-2.0")
    page = write_card_page(told, base_licence, "me/a", Path("nowhere/specialist"))
    front = yaml.safe_load(page.split("---")[1])
    assert front["license"] == "other"
    assert "research use" in page
    assert "test scores were not beside the specialist" in page
    assert "must not be used for" in page


def test_a_folder_of_this_machine_is_called_as_others_know_it() -> None:
    recipe = {"guard": {"retention": "/home/me/general", "alphas": [0, 1]}, "seed": 3}
    paths = {"folder:/home/me/a/b": "folder:b", "~/me/b": "b", "..\\me\\b": "b", "generated": "generated"}
    for given, shown in paths.items():
        told, _ = check_terms(card(recipe={"guard": {"retention": given}}), Terms(may_share=True, data_licence="ours"))
        assert told.recipe == {"guard": {"retention": shown}}
    told, _ = check_terms(card(base="/home/me/base", recipe=recipe), Terms(base="me/base", base_licence="MIT"))
    assert told.base == "me/base"
    assert told.recipe == {"guard": {"retention": "general", "alphas": [0, 1]}, "seed": 3}
    assert "/home" not in told.model_dump_json()
