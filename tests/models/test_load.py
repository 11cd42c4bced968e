"""One name for every kind of model, and the way back to other programs.

The oracles: the tensors that were written, and the layout of the official checkpoints (made here with random weights).
"""

from __future__ import annotations

import shutil
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from specialsam.core.errors import ModelError, UsageError
from specialsam.core.types import Prompts
from specialsam.models.architectures import build, to_official
from specialsam.models.export import export_model
from specialsam.models.folder import save_pretrained
from specialsam.models.load import BUNDLED, load_base, load_model
from specialsam.models.nano import build_nano
from specialsam.models.segmenter import Segmenter, fingerprint
from specialsam.models.specialist import SpecialistCard, clone, save_specialist
from specialsam.models.zoo import CARDS

IMAGE = np.random.default_rng(0).integers(0, 255, (60, 80, 3)).astype(np.uint8)
PROMPT = Prompts("box", boxes=np.array([[10, 10, 50, 40]], np.float32))


@pytest.fixture(scope="module")
def mobile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint in MobileSAM's official layout with random weights, called nothing that tells."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("mobile") / "weights.pth"
    torch.save(to_official(build(CARDS["mobile_sam"]).state_dict(), CARDS["mobile_sam"]), path)
    return path


@pytest.fixture(scope="module")
def specialist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A specialist on nano whose mask decoder differs from the base's."""
    base = load_model("nano")
    tuned = clone(base, "tuned")
    with torch.no_grad():
        for parameter in tuned.sam.mask_decoder.parameters():  # type: ignore[union-attr]
            parameter.mul_(1.01)
    ids = {"base_encoder_id": base.encoder_id, "base_decoder_id": base.decoder_id}
    card = SpecialistCard(name="leaves", base="nano", side=base.side, tuned="decoder", **ids)
    return save_specialist(tuned, card, tmp_path_factory.mktemp("specialist") / "leaves")


def refused(name: object, kind: type[Exception], *words: str, base: str | None = None) -> None:
    with pytest.raises(kind) as caught:
        load_model(str(name), base)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value), str(caught.value)


def test_nano_is_bundled_frozen_and_the_same_every_time() -> None:
    first, second = load_model("nano"), load_model("nano")
    assert not first.sam.training
    assert not any(parameter.requires_grad for parameter in first.sam.parameters())
    assert (first.encoder_id, first.decoder_id) == (second.encoder_id, second.decoder_id)


def test_unknown_name_lists_the_known_ones() -> None:
    refused("sam_vit_x", UsageError, "nano", *CARDS, "specialist folder", "'sam_vit_x'")


def test_missing_checkpoint(tmp_path: Path) -> None:
    refused(tmp_path / "gone.pth", ModelError, "gone.pth", "found no such file")


def test_damaged_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(b"not a checkpoint")
    refused(tmp_path / "a.pth", ModelError, "a.pth", "damaged or of another format")


def test_checkpoint_of_another_model_says_what_it_looks_like(mobile: Path) -> None:
    refused(mobile, ModelError, "expected weights of sam_vit_b", "looks like mobile_sam", base="sam_vit_b")
    refused(mobile, UsageError, "sam_vit_h", "'sam_vit_xl'", base="sam_vit_xl")


def test_checkpoint_of_nothing_known(tmp_path: Path) -> None:
    torch.save({"layer.weight": torch.zeros(2, 2)}, tmp_path / "resnet.pth")
    refused(tmp_path / "resnet.pth", ModelError, *CARDS, "resnet.pth looks like unknown")


def test_empty_folder_is_no_model(tmp_path: Path) -> None:
    refused(tmp_path, ModelError, "config.json")


def test_hub_id_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    refused("nobody/no-such-sam", ModelError, "nobody/no-such-sam", "download the folder elsewhere")


@pytest.mark.parametrize("name", list(CARDS))
def test_zoo_name_without_a_network(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setenv("SPECIALSAM_WEIGHTS", str(tmp_path))
    monkeypatch.setattr("specialsam.models.weights.urlopen", offline)
    card = CARDS[name]
    refused(name, ModelError, "no route to host", card.url, card.filename, str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_specialist_folder_stands_on_its_base(specialist: Path) -> None:
    loaded, base = load_model(specialist), load_model("nano")
    assert loaded.name == "leaves"
    assert loaded.encoder_id == base.encoder_id
    assert loaded.decoder_id != base.decoder_id


def test_specialist_on_another_base_is_refused(specialist: Path, mobile: Path) -> None:
    refused(specialist, ModelError, "leaves was tuned on nano", "load it on nano", base=str(mobile))


@pytest.mark.parametrize("which", ["nano", "specialist"])
def test_exported_folder_gives_the_same_masks(which: str, specialist: Path, tmp_path: Path) -> None:
    name = "nano" if which == "nano" else str(specialist)
    folder = export_model(name, tmp_path / "model")
    assert export_model(name, folder) == folder, "an earlier export may be replaced"
    before, after = load_model(name), load_model(folder)
    expected = before.decode(before.encode(IMAGE), PROMPT).logits
    assert torch.equal(after.decode(after.encode(IMAGE), PROMPT).logits, expected)


def test_pth_goes_there_and_back_with_equal_tensors(mobile: Path, tmp_path: Path) -> None:
    """Oracle: the names and tensors of the file that was read first."""
    out = export_model(str(mobile), tmp_path / "again.pth")
    before, after = (torch.load(path, weights_only=True) for path in (mobile, out))
    assert before.keys() == after.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    first, second = load_model(mobile), load_model(out)
    assert first.name == second.name == "mobile_sam"
    assert (first.encoder_id, first.decoder_id) == (second.encoder_id, second.decoder_id)


def test_nano_has_no_official_layout(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"got nano; export it to a folder instead"):
        export_model("nano", tmp_path / "nano.pth")
    assert list(tmp_path.iterdir()) == []


def test_export_never_replaces_what_is_no_model(tmp_path: Path) -> None:
    """A folder with other files, a file, a folder called .pth: all refused before anything is loaded or written."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").write_text("dear")
    (tmp_path / "odd.pth").mkdir()
    for name, config in (("app", '{"my": "app"}'), ("model", '{"model_type": "sam"}'), ("only", '{"my": "app"}')):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(config)
    for name in ("app", "model"):
        (tmp_path / name / "thesis.tex").write_text("years of work")
    for place in (
        tmp_path / "app",
        tmp_path / "model",
        tmp_path / "only",
        tmp_path / "home",
        tmp_path / "home" / "letter.txt",
        tmp_path / "odd.pth",
        tmp_path / "a.safetensors",
    ):
        with pytest.raises(UsageError, match="expected"):
            export_model("nano", place)
    assert (tmp_path / "home" / "letter.txt").read_text() == "dear"
    assert (tmp_path / "app" / "thesis.tex").exists()
    assert (tmp_path / "model" / "thesis.tex").exists()


def test_export_goes_to_where_one_stands_and_replaces_an_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for _ in range(2):
        export_model("nano", Path())
        assert load_model(str(tmp_path / "here")).decoder_id == load_model("nano").decoder_id


def test_a_specialist_is_not_its_own_base(specialist: Path) -> None:
    refused(specialist, ModelError, "expected the model", "specialist itself", base=str(specialist))


def poisoned(path: Path, name: str) -> None:
    """The last number of one tensor of a .safetensors or .pth file becomes NaN."""
    if path.suffix == ".pth":
        state = torch.load(path, weights_only=True)
        state[name].view(-1)[-1] = float("nan")
        torch.save(state, path)
        return
    state = load_file(path)
    state[name].view(-1)[-1] = float("nan")
    save_file(state, path, {"format": "pt"})


def test_weights_that_are_not_finite_are_refused_however_they_come(
    mobile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bundled nano, our folder, transformers' folder, a checkpoint; each names its tensor as its file does."""
    torch.manual_seed(0)
    shutil.copytree(BUNDLED / "nano", tmp_path / "nano")
    save_pretrained(Segmenter("own", build_nano("conv", 128), 128), tmp_path / "own")
    save_pretrained(Segmenter("plain", build_nano("vit", 128), 128), tmp_path / "plain")
    shutil.copy(mobile, tmp_path / "mobile.pth")
    monkeypatch.setattr("specialsam.models.load.BUNDLED", tmp_path)
    for model, file, tensor in (
        ("nano", "nano/model.safetensors", "mask_decoder.iou_token.weight"),
        (tmp_path / "own", "own/model.safetensors", "specialsam_encoder.out.weight"),
        (tmp_path / "plain", "plain/model.safetensors", "vision_encoder.patch_embed.projection.weight"),
        (tmp_path / "mobile.pth", "mobile.pth", "image_encoder.neck.0.weight"),
    ):
        load_model(model)
        poisoned(tmp_path / file, tensor)
        refused(model, ModelError, f"got NaN or infinity in {tensor}", str(tmp_path))


def told(folder: Path, base: object) -> Path:
    """A specialist folder's card alone: which base it names is looked for before anything else is read."""
    ids = {"base_encoder_id": "e", "base_decoder_id": "d"}
    card = SpecialistCard(name=folder.name, base=str(base), side=256, tuned="decoder", **ids)
    folder.mkdir(parents=True)
    (folder / "specialist.json").write_text(card.model_dump_json())
    return folder


def test_bases_in_a_circle_are_named(tmp_path: Path) -> None:
    one, other = told(tmp_path / "a", tmp_path / "b"), told(tmp_path / "b", tmp_path / "a")
    refused(one, ModelError, "got a circle", f"({one} -> {other} -> {one})")
    outside = told(tmp_path / "c", one)
    refused(outside, ModelError, f"({one} -> {other} -> {one})")
    refused(told(tmp_path / "d", tmp_path / "d"), ModelError, "specialist itself")


def test_a_specialist_may_stand_on_a_specialist(specialist: Path, tmp_path: Path) -> None:
    """Oracle: the tensors that were saved; the base is the other specialist, and nano alone is refused."""
    first = load_model(specialist)
    tuned = clone(first, "tuned")
    with torch.no_grad():
        for parameter in tuned.sam.mask_decoder.parameters():  # type: ignore[union-attr]
            parameter.mul_(0.99)
    ids = {"base_encoder_id": first.encoder_id, "base_decoder_id": first.decoder_id}
    card = SpecialistCard(name="second", base=str(specialist), side=first.side, tuned="decoder", **ids)
    folder = save_specialist(tuned, card, tmp_path / "second")
    assert fingerprint(load_model(folder).sam) == fingerprint(tuned.sam)
    assert load_base(folder).decoder_id == first.decoder_id
    refused(folder, ModelError, first.decoder_id, load_model("nano").decoder_id, base="nano")


def test_a_base_that_is_not_here_is_named_with_its_specialist(tmp_path: Path) -> None:
    folder = told(tmp_path / "a", "/somewhere/else/model")
    refused(folder, ModelError, f"expected the base of {folder}", "'/somewhere/else/model'")


HUB = "someone/sam"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool]]:
    """What is loaded through transformers, and whether from the cache alone; nothing is, it all fails."""
    calls: list[tuple[str, bool]] = []

    def spy(source: Path | str, local: bool = False) -> None:
        calls.append((str(source), local))
        raise ModelError("asked")

    monkeypatch.setattr("specialsam.models.weights.load_transformers", spy)
    return calls


def test_the_hub_is_asked_for_a_cards_base_only_with_trust(tmp_path: Path, asked: list[tuple[str, bool]]) -> None:
    folder = told(tmp_path / "a", HUB)
    line = f"the specialist's card names the hub model {HUB}, which is fetched only with --trust-base"
    refused(folder, ModelError, line, str(folder))
    refused(told(tmp_path / "b", folder), ModelError, line, str(folder))
    with pytest.raises(ModelError, match="trust-base"):
        load_base(folder)
    assert asked == []
    for call in (load_model, load_base):
        with pytest.raises(ModelError, match="asked"):
            call(folder, trust_base=True)
    assert asked == [(HUB, False)] * 2


def test_who_names_a_hub_model_is_trusted_with_it(specialist: Path, asked: list[tuple[str, bool]]) -> None:
    refused(HUB, ModelError, "asked")
    refused(specialist, ModelError, "asked", base=HUB)
    assert asked == [(HUB, False)] * 2


@pytest.mark.parametrize("name", ["some one/sam", "a--b/..c", "x/" + "y" * 200])
def test_an_impossible_hub_id_on_a_card_is_one_line(tmp_path: Path, name: str) -> None:
    refused(told(tmp_path / "a", name), ModelError, name, "--trust-base")


def test_a_cards_hub_base_in_the_local_cache_needs_no_trust(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache as huggingface_hub lays it out; without the weights in it, it does not count."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    torch.manual_seed(0)
    base = Segmenter(HUB, build_nano("vit", 128), 128)
    repository = tmp_path / "hub" / "models--someone--sam"
    snapshot = save_pretrained(base, repository / "snapshots" / "abc")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    ids = {"base_encoder_id": base.encoder_id, "base_decoder_id": base.decoder_id}
    card = SpecialistCard(name="leaves", base=HUB, side=128, tuned="decoder", **ids)
    folder = save_specialist(clone(base), card, tmp_path / "leaves")
    assert load_model(folder).decoder_id == base.decoder_id
    assert load_base(folder).name == HUB
    (snapshot / "model.safetensors").unlink()
    refused(folder, ModelError, HUB, "--trust-base")


def test_a_model_lands_on_the_device_that_was_asked_for(specialist: Path) -> None:
    """Meta is a device that is always there; what is on it has no numbers."""
    for name in ("nano", specialist):
        moved = load_model(name, device="meta")
        assert {tensor.device.type for tensor in (*moved.sam.parameters(), *moved.sam.buffers())} == {"meta"}
        assert moved.device == torch.device("meta") == load_model(name, device=torch.device("meta")).device
        assert load_model(name, device="cpu").device == load_model(name).device == torch.device("cpu")
    assert load_base(specialist, device="meta").device == torch.device("meta")
    with pytest.raises(UsageError, match=r"expected a device that torch has here .*, got 'nowhere'"):
        load_model("nano", device="nowhere")


def test_a_folder_that_is_not_there_is_not_asked_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    refused("runs/missing", ModelError, "runs/missing", "found none in runs/")
