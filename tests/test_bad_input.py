"""Bad input through the command line: exit code 1 or 2, one line on standard error that says what to do, no traceback.

The oracle is the promise of the command line itself; what each line must name is written by hand. Most calls go through
`cli.main` in this process, which is what the installed command runs; interrupts and full disks need processes and
mounts of their own.
"""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from specialsam import cli

DONE, FAILED, WRONG_USE = 0, 1, 2
FAST = (
    *("--set", "train.epochs=1", "--set", "duplicates=false"),
    *("--set", "evaluate.strategies=[interior]", "--set", "evaluate.groups=[overlap]"),
    *("--set", "guard.retention_images=4", "--set", "train.replay_pool=4"),
    *("--set", "finder.epochs=2", "--set", "finder.grid=1"),
)
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Run the command line; (exit code, standard output, standard error)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["specialsam", *map(str, arguments)])
        capsys.readouterr()
        try:
            cli.main()
            code = DONE
        except SystemExit as end:
            code = int(end.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return run


def refused(answer: tuple[int, str, str], code: int, *words: str) -> None:
    """The call ended with `code` and one line that begins with "error:" and holds all `words`."""
    found, _, err = answer
    lines = err.splitlines()
    assert len(lines) == 1, err
    assert lines[0].startswith("error: ")
    assert "Traceback" not in err
    assert not err.startswith("error: unexpected "), f"an error that nobody thought of: {err}"
    for word in words:
        assert word in lines[0], lines[0]
    assert found == code


def disc(number: int, size: tuple[int, int] = (48, 64)) -> tuple[Image.Image, Image.Image]:
    """A bright disc on noise, and its mask (0 or 255)."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    rng = np.random.default_rng(number)
    image = rng.integers(60, 120, (*size, 3)).astype(np.uint8)
    mask = (columns - rng.uniform(24, 40)) ** 2 + (rows - rng.uniform(18, 30)) ** 2 < rng.uniform(8, 12) ** 2
    image[mask] += 100
    return Image.fromarray(image), Image.fromarray(mask.astype(np.uint8) * 255)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Eight good images with masks, in the layout of a plain folder."""
    folder = tmp_path / "data"
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    for number in range(8):
        image, mask = disc(number)
        image.save(folder / f"images/{number}.png")
        mask.save(folder / f"masks/{number}.png")
    return folder


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    return tmp_path / "run"


def test_missing_folder(call: Call, tmp_path: Path, run_folder: Path) -> None:
    refused(call("specialize", tmp_path / "nowhere", "-o", run_folder), FAILED, "nowhere", "found nothing there")
    assert not run_folder.exists()


def test_empty_folder(call: Call, tmp_path: Path, run_folder: Path) -> None:
    (tmp_path / "empty").mkdir()
    refused(call("specialize", tmp_path / "empty", "-o", run_folder), FAILED, "the folder is empty")


def test_unknown_layout_says_what_was_looked_for(call: Call, tmp_path: Path, run_folder: Path) -> None:
    (tmp_path / "odd" / "things").mkdir(parents=True)
    (tmp_path / "odd" / "notes.txt").write_text("nothing")
    answer = call("specialize", tmp_path / "odd", "-o", run_folder)
    refused(answer, FAILED, "layout is none of those known", "images/ + masks/", "GT_Object")


def test_a_file_is_no_data_set(call: Call, tmp_path: Path, run_folder: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    refused(call("specialize", tmp_path / "a.txt", "-o", run_folder), FAILED, "expected a folder or a COCO .json file")


def test_unknown_adapter(call: Call, tmp_path: Path, run_folder: Path) -> None:
    refused(call("specialize", "cityscapes:x", "-o", run_folder), WRONG_USE, "cityscapes", "cod10k")


def test_images_without_any_mask(call: Call, tmp_path: Path, run_folder: Path) -> None:
    (tmp_path / "photos").mkdir()
    disc(0)[0].save(tmp_path / "photos" / "a.png")
    answer = call("specialize", tmp_path / "photos", "-o", run_folder)
    refused(answer, FAILED, "expected images with masks", "without a single object")


def test_empty_masks_folder_and_empty_masks(call: Call, data: Path, run_folder: Path) -> None:
    for path in (data / "masks").iterdir():
        Image.new("L", (64, 48)).save(path)
    refused(call("specialize", data, "-o", run_folder), FAILED, "without a single object")
    for path in (data / "masks").iterdir():
        path.unlink()
    refused(call("specialize", data, "-o", run_folder), FAILED, "8 problems", "expected a mask of the same name")


def test_masks_of_other_sizes(call: Call, data: Path, run_folder: Path) -> None:
    for path in (data / "masks").iterdir():
        Image.open(path).resize((32, 24)).save(path)
    refused(call("specialize", data, "-o", run_folder), FAILED, "expected a mask of 48x64", "24x32")


def test_masks_with_unexpected_values(call: Call, data: Path, run_folder: Path) -> None:
    """Every mask is a picture with hundreds of values: neither a binary mask nor a label map."""
    for path in (data / "masks").iterdir():
        noise = np.random.default_rng(1).integers(0, 60000, (48, 64)).astype(np.uint16)
        Image.fromarray(noise).save(path)
    answer = call("specialize", data, "-o", run_folder)
    refused(answer, FAILED, "8 problems", "the values of its mask", "0 look binary")


def test_too_few_images(call: Call, data: Path, run_folder: Path) -> None:
    for number in range(2, 8):
        (data / "images" / f"{number}.png").unlink()
        (data / "masks" / f"{number}.png").unlink()
    refused(call("specialize", data, "-o", run_folder, *FAST), FAILED, "expected at least 3 records", "got 2")


def test_bad_files_beside_good_ones_are_problems_and_the_run_goes_on(call: Call, data: Path, run_folder: Path) -> None:
    """Truncated, foreign, empty, duplicate, differing, unlabelled and enormous images beside eight good ones."""
    images, masks = data / "images", data / "masks"
    image, mask = disc(20)
    for name in ("short", "foreign", "void", "narrow"):
        image.save(images / f"{name}.png")
        mask.save(masks / f"{name}.png")
    content = (masks / "short.png").read_bytes()
    (masks / "short.png").write_bytes(content[: len(content) // 2])
    (images / "foreign.png").write_text("this is no picture")
    (images / "void.png").write_bytes(b"")
    mask.resize((32, 48)).save(masks / "narrow.png")
    image.save(images / "0.bmp")
    image.save(images / "lonely.png")
    (images / "readme.txt").write_text("hello")
    Image.new("1", (20_000, 20_000)).save(images / "enormous.png")
    Image.new("1", (20_000, 20_000), 1).save(masks / "enormous.png")
    code, out, err = call("specialize", data, "-o", run_folder, *FAST)
    assert (code, err) == (DONE, "")
    assert "8 images with objects" in out
    page = (run_folder / "report.html").read_text()
    for name in ("short", "foreign", "void", "narrow", "0.bmp", "lonely", "readme.txt", "enormous"):
        assert name in page
    assert "400 megapixels" in page


@pytest.mark.skipif(sys.platform != "linux", reason="other systems take no such names")
@pytest.mark.timeout(200)
def test_names_and_files_that_nobody_would_give(call: Call, data: Path, run_folder: Path) -> None:
    """Names in no encoding, mathematics and controls as categories, pipes, damage behind good headers, a row of pixels.

    The run goes through to its page, says nothing on standard error, and names what it could not use.
    """
    images, masks = data / "images", data / "masks"
    names = [os.fsdecode(b"caf\xe9"), "$\\bad{$", "_<b>&", "\N{GRINNING FACE}\N{HEBREW LETTER ALEF}", "e\x1b[31m\nf"]
    for number, name in enumerate(names):
        for repeat in range(3):
            image, mask = disc(40 + 10 * number + repeat)
            for folder, picture in ((images / name, image), (masks / name, mask)):
                folder.mkdir(exist_ok=True)
                picture.save(folder / f"{name}{repeat}.png")
    image, mask = disc(30)
    for name in ("cut", "wrong"):
        image.save(images / f"{name}.png")
        mask.save(masks / f"{name}.png")
    content = (images / "cut.png").read_bytes()
    (images / "cut.png").write_bytes(content[:-3000])
    (images / "wrong.png").write_bytes(content[:200] + bytes(200) + content[400:])
    Image.new("RGB", (20_000, 1), (9, 99, 9)).save(images / "line.png")
    Image.new("L", (20_000, 1), 255).save(masks / "line.png")
    os.mkfifo(images / "pipe.png")
    (images / "photo.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n")
    (images / "loop.tif").symlink_to("loop.tif")
    code, out, err = call("specialize", data, "-o", run_folder, *FAST[:2], *FAST[4:], "-s", "probes=0")
    assert (code, err) == (DONE, "")
    assert "\x1b" not in out
    page = (run_folder / "report.html").read_text(encoding="utf-8")
    damaged = [f"{name}.png: the image is damaged or cut short" for name in ("cut", "wrong")]
    others = ("pipe.png: expected a file, got a named pipe", "photo.jpg: expected an image file", "loop.tif")
    for text in (*damaged, *others, "caf\\xe9", "$\\bad{$", "\N{GRINNING FACE}"):
        assert text in page
    assert "<b>&" not in page
    assert {"categories.png", "models.png"} <= {path.name for path in (run_folder / "figures").iterdir()}


def test_an_image_of_one_pixel_works(call: Call, data: Path, run_folder: Path) -> None:
    for number in range(8, 11):
        Image.new("RGB", (1, 1), (200, 10, 10)).save(data / "images" / f"{number}.png")
        Image.new("L", (1, 1), 255).save(data / "masks" / f"{number}.png")
    code, out, err = call("evaluate", data, "-m", "nano", "-o", run_folder, "--split", "all")
    assert (code, err) == (DONE, "")
    assert "failed" not in out
    assert (run_folder / "means.csv").exists()


def test_output_below_a_file(call: Call, data: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for command in (("specialize", data), ("train", data), ("evaluate", data, "-m", "nano")):
        refused(call(*command, "-o", tmp_path / "file" / "run"), FAILED, "cannot write", "choose another folder")
    refused(call("embed", data, "--store", tmp_path / "file" / "store"), FAILED, "file")
    refused(call("export", "nano", "-o", tmp_path / "file" / "model"), FAILED, "file")
    refused(call("export", "nano", "-o", tmp_path / "file"), WRONG_USE, "is a file")
    assert (tmp_path / "file").read_text() == "x"


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that even root cannot write: /proc")
def test_read_only_output(call: Call, data: Path) -> None:
    refused(call("specialize", data, "-o", "/proc/run"), FAILED, "cannot write /proc/run")
    refused(call("embed", data, "--store", "/proc/store"), FAILED, "/proc/store")


def test_output_folder_with_other_things_is_left_alone(call: Call, data: Path, run_folder: Path) -> None:
    run_folder.mkdir()
    (run_folder / "thesis.tex").write_text("years of work")
    refused(call("specialize", data, "-o", run_folder, *FAST), WRONG_USE, "not empty", "choose another --out")
    refused(call("export", "nano", "-o", run_folder), WRONG_USE, "holds other files")
    assert (run_folder / "thesis.tex").read_text() == "years of work"
    assert len(list(run_folder.iterdir())) == 1


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 600 KB; skipped where this user may not mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", place], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("this user cannot mount a small file system")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def test_full_disk(call: Call, data: Path, tiny_disk: Path) -> None:
    refused(call("specialize", data, "-o", tiny_disk / "run", *FAST), FAILED, "disk")
    refused(call("export", "nano", "-o", tiny_disk / "model"), FAILED, "cannot write", "make room")
    assert not (tiny_disk / "model").exists()


def test_full_disk_while_rows_are_written(
    call: Call, data: Path, run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Path.open

    def full(self: Path, mode: str = "r", *rest: object, **more: object) -> object:
        if self.name == "rows.jsonl" and mode == "ab":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))
        return opened(self, mode, *rest, **more)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", full)
        answer = call("evaluate", data, "-m", "nano", "-o", run_folder, "--set", "groups=[overlap]")
        refused(answer, FAILED, "rows.jsonl", "No space left on device", "make room")
    assert call("evaluate", data, "-m", "nano", "-o", run_folder, "--set", "groups=[overlap]")[0] == DONE


def test_loss_that_is_not_finite(call: Call, data: Path, run_folder: Path) -> None:
    answer = call("specialize", data, "-o", run_folder, *FAST, "--set", "train.lr=1e30")
    refused(answer, FAILED, "expected a finite loss, got nan", "lower")
    assert not (run_folder / "specialist").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("specialise", "x"), ("No such command", "specialise")),
        (("specialize",), ("Missing argument", "SOURCE")),
        (("specialize", "x", "--colour", "red"), ("No such option", "--colour")),
        (("specialize", "x", "--limit", "0"), ("--limit",)),
        (("specialize", "x", "--limit", "many"), ("--limit",)),
        (("specialize", "x", "--set", "speed=3"), ("settings: speed", "Extra inputs")),
        (("specialize", "x", "--set", "train.speed=3", "-s", "train.lr=-1"), ("train.speed", "train.lr", "greater")),
        (("specialize", "x", "--set", "train.epochs=some"), ("train.epochs",)),
        (("specialize", "x", "--set", "seed"), ("expected --set NAME=VALUE", "'seed'")),
        (("specialize", "x", "--set", "=3"), ("expected --set NAME=VALUE",)),
        (("specialize", "x", "--set", "seed=[1"), ("--set seed: expected a YAML value", "[1")),
        (("specialize", "x", "--set", "seed=1", "-s", "seed.more=1"), ("seed is a value",)),
        (("specialize", "x", "-s", "seed=-1"), ("settings: seed: ", "at least 0", "got -1")),
        (("specialize", "x", "-s", "seed=1e30"), ("settings: seed: ",)),
        (("specialize", "x", "-s", f"seed={2**64}"), ("settings: seed: ", "65 bits")),
        (("specialize", "x", "-s", "seed=" + "9" * 5000), ("--set seed: expected a YAML value", "too many digits")),
        (("specialize", "x", "-s", "seed=" + "[" * 100_000), ("--set seed: expected a YAML value", "too deeply")),
        (("specialize", "x", "-s", "seed=*other"), ("--set seed: expected a YAML value", "reference *other")),
        (("specialize", "x", "-s", "seed=2001-99-99"), ("--set seed: expected a YAML value", "month")),
        (("specialize", "x", "-s", "evaluate.tolerance=.inf"), ("evaluate.tolerance: ", "finite")),
        (("specialize", "x", "-s", "train.lr=.nan"), ("train.lr: ", "finite")),
        (("specialize", "x", "-s", "train.lr=1e999"), ("train.lr: ", "finite")),
        (("specialize", "x", "-s", "train.prompts={box: .nan}"), ("train.prompts.box: ", "finite")),
        (("specialize", "x", "-s", "views={scale: [.inf, .inf]}"), ("views.scale", "finite")),
        (("specialize", "x", "-s", f"train.epochs={10**18}"), ("train.epochs: ", "60 bits")),
        (("specialize", "x", "-s", "train={1: 2}"), ("train.1: ",)),
        (("specialize", "x", "-s", f"guard.alphas={['no'] * 3000}"), ("guard.alphas.19: ", "and 2980 more")),
        (("synth", "scenes", "-o", "x.png", "--seed", "-1"), ("--seed", "greater than or equal to 0")),
        (("synth", "defects", "x", "-o", "x.png", "--seed", "-1"), ("--seed", "greater than or equal to 0")),
        (("study", "wood", "-d", "x", "-r", "seed", "-s", "data.seed=-1"), ("data.seed: ", "got -1")),
        (("study", "carpet", "-d", "x", "-s", "data.kinds={stain: .inf}"), ("data.kinds.stain", "finite")),
        (("specialize", "x", "--set", "evaluate.strategies=[telepathy]"), ("telepathy", "interior")),
        (("specialize", "x", "--set", "evaluate.strategies=[box]"), ("main_strategy", "'interior'")),
        (("specialize", "x", "--set", "views=sepia"), ("sepia", "carpet")),
        (("specialize", "x", "--config", "nowhere.yaml"), ("--config", "nowhere.yaml")),
        (("evaluate", "x", "-m", "nano", "-o", "y", "--split", "dev"), ("--split", "'dev'")),
        (("evaluate", "x", "-o", "y"), ("--model",)),
        (("specialize", "x", "--model", "sam_vit_xxl"), ("sam_vit_b", "'sam_vit_xxl'")),
        (("models", "show", "gpt"), ("mobile_sam", "'gpt'")),
        (("report", "nowhere"), ("expected a run folder", "nowhere")),
        (("export", "nano", "-o", "model.onnx"), ("expected a folder or a .pth file", "model.onnx")),
    ],
)
def test_wrong_use(call: Call, arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    refused(call(*arguments), WRONG_USE, *words)


LAUGHS = "\n".join(["a0: &a0 [1]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)])
MERGES = "\n".join(
    ["a0: &a0 {x: 1}"] + [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 10)]
)


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "content",
    [
        *(b"train: [1", b"- 1\n- 2\n", b"\xff\xfe\x00", b"train: {lr: fast}\n", b"train: 3\n"),
        *(b"train: " + b"[" * 100_000, b"{a: " * 50_000, b"\n".join(b" " * n + b"-" for n in range(600))),
        *(LAUGHS.encode(), MERGES.encode(), b"a: &a [*a]"),
        *(b"seed: 1" + b":59" * 60_000, b"seed: " + b"9" * 100_000, b"#" * 300_000),
        *(b"seed: !!python/object/apply:os.system [true]", b"seed: !!bool maybe", b"seed: !!timestamp never"),
    ],
    ids=lambda content: ascii(content)[:30],
)
def test_wrong_settings_file(call: Call, tmp_path: Path, content: bytes) -> None:
    """A file of settings, and a recipe of a study: bounded in time and room, and one line."""
    (tmp_path / "recipe.yaml").write_bytes(content)
    refused(call("specialize", "x", "--config", tmp_path / "recipe.yaml"), WRONG_USE, "")
    refused(call("study", "wood", "--data", "x", "--recipe", tmp_path / "recipe.yaml"), WRONG_USE, "")


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="needs a device that never ends")
def test_settings_that_never_end(call: Call) -> None:
    refused(call("specialize", "x", "--config", "/dev/zero"), WRONG_USE, "--config", "larger than 200 kB")
    refused(call("study", "wood", "--data", "x", "--recipe", "/dev/zero"), WRONG_USE, "larger than 200 kB")


def test_settings_from_a_pipe(call: Call, tmp_path: Path) -> None:
    """`--config <(command)` is a pipe that somebody named: it is read."""
    read, write = os.pipe()
    os.write(write, b"seed: -5\n")
    os.close(write)
    refused(call("specialize", "x", "--config", f"/dev/fd/{read}"), WRONG_USE, "settings: seed", "got -5")
    os.close(read)


def test_a_zoo_model_without_a_network(
    call: Call, data: Path, tmp_path: Path, run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from urllib.error import URLError

    def offline(*_: object, **__: object) -> None:
        raise URLError("no network")

    monkeypatch.setenv("SPECIALSAM_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setattr("specialsam.models.weights.urlopen", offline)
    words = ("no network", "https://", "mobile_sam.pt", str(tmp_path / "weights"))
    refused(call("specialize", data, "-m", "mobile_sam", "-o", run_folder), FAILED, *words)
    refused(call("models", "fetch", "mobile_sam"), FAILED, *words)
    refused(call("models", "verify", "mobile_sam"), FAILED, "found no such file", *words[1:])
    assert not run_folder.exists()


@pytest.mark.parametrize(
    "command",
    [
        ("audit", "DATA", "-m", "CARD", "-o", "OUT"),
        ("advise", "DATA", "-m", "CARD", "-o", "OUT"),
        ("bench", "CARD", "--camo", "DATA"),
        ("export", "CARD", "-o", "OUT"),
        ("study", "photos", "DATA", "--run", "CARD", "-o", "OUT"),
    ],
    ids=lambda command: command[0],
)
def test_a_cards_hub_model_is_asked_for_with_trust_alone(
    call: Call, command: tuple[str, ...], data: Path, tmp_path: Path, run_folder: Path
) -> None:
    """The hub is offline in tests: with trust it is asked and the line says that it cannot be reached."""
    told = tmp_path / "stranger" / "specialist.json"
    told.parent.mkdir()
    fields = {"name": "leaves", "base": "someone/sam", "base_encoder_id": "e", "base_decoder_id": "d", "side": 256}
    told.write_text(json.dumps(fields | {"tuned": "decoder"}))
    places = {"DATA": data, "CARD": told.parent, "OUT": run_folder}
    arguments = [places.get(word, word) for word in command]
    without = call(*arguments)
    refused(without, FAILED, str(told.parent), "names the hub model someone/sam", "fetched only with --trust-base")
    refused(call(*arguments, "--trust-base"), FAILED, "cannot load someone/sam")
    assert not run_folder.exists()


def test_debug_shows_the_traceback_and_keeps_the_exit_code(call: Call, tmp_path: Path) -> None:
    for arguments, code in ((("specialize", tmp_path / "nowhere"), FAILED), (("report", tmp_path), WRONG_USE)):
        found, _, err = call(*arguments, "--debug")
        assert found == code
        assert "Traceback (most recent call last)" in err
        assert "Error: " in err.splitlines()[-1]


def test_an_error_that_nobody_thought_of_is_one_line_too(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("division\nby zero")

    monkeypatch.setattr("specialsam.pipeline.specialize.resume", broken)
    code, _, err = call("report", "x")
    assert (code, err) == (FAILED, "error: unexpected ZeroDivisionError: division by zero (--debug shows where)\n")


STRUCK = """
import os, signal, sys
from specialsam.cli import main
from specialsam.core.ledger import Journal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background inherits that it is ignored,
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # and so does one under nohup
number = sys.argv.pop(1)
put, count = Journal.put, 0
def struck(self, key, made_from, answer):
    global count
    put(self, key, made_from, answer)
    count += 1
    if count == 4:
        os.kill(os.getpid(), getattr(signal, number))
Journal.put = struck
main()
"""
"""The command line, struck by a signal when two images are measured (the model's rows and the rivals' of each)."""


@pytest.mark.parametrize(("number", "code"), [("SIGINT", FAILED), ("SIGTERM", FAILED), ("SIGHUP", FAILED)])
def test_a_signal_keeps_what_was_finished_and_the_same_command_goes_on(
    data: Path, run_folder: Path, number: str, code: int
) -> None:
    """A signal to a process that has measured two images; the second call measures the others."""
    rows = run_folder / "rows.jsonl"
    options = ["evaluate", str(data), "-m", "nano", "-o", str(run_folder), "--split", "all", "-s", "strategies=[box]"]
    process = subprocess.run(
        [sys.executable, "-c", STRUCK, number, *options], capture_output=True, text=True, check=False
    )
    assert process.returncode == code
    assert process.stderr.strip() == "stopped; what was finished is kept, the same command goes on from there"
    kept = rows.read_text().splitlines()
    assert len(kept) == 4
    assert not [path.name for path in run_folder.rglob(".*") if path.name != ".lock"]
    if number != "SIGINT":
        return  # what is kept is the same
    command = [sys.executable, "-m", "specialsam.cli", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (DONE, "")
    again = rows.read_text().splitlines()
    assert again[: len(kept)] == kept
    assert len(again) == 16
