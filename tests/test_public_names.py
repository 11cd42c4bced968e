"""What importing costs, and which names are public: the heavy libraries wait until they are needed.

Times are CPU seconds, the best of three processes, because wall-clock time says more of a busy machine than of us. The
aims are 0.3 s for `import specialsam` and 0.7 s for `specialsam --help`; the limits here are wider by a stated factor,
because cores differ. Which modules are loaded is exact.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import subprocess
import sys

import pytest

import specialsam

HEAVY = ("torch", "pandas", "matplotlib", "transformers", "sklearn", "scipy", "accelerate", "pyarrow")
SLACK = 2
"""How much slower than the aim a machine may be."""
LOADED = f"""
import json, sys
print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))
"""
HELP = """
import sys
from specialsam import cli
sys.argv = ["specialsam", *sys.argv[1:]]
try:
    cli.main()
except SystemExit as end:
    assert not end.code, end.code
"""


def run(code: str, *arguments: str) -> str:
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True).stdout


def seconds(code: str, *arguments: str) -> float:
    """Best of three, less the start of Python itself (best of three)."""

    def best(text: str, *more: str) -> float:
        times = []
        for _ in range(3):
            before = os.times()
            run(text, *more)
            after = os.times()
            times.append(sum(after[2:4]) - sum(before[2:4]))
        return min(times)

    return best(code, *arguments) - best("pass")


@pytest.mark.parametrize(
    "code",
    ["import specialsam", "import specialsam.cli", "import specialsam.core.types, specialsam.core.errors", HELP],
    ids=["package", "cli", "core", "help"],
)
def test_heavy_libraries_are_not_imported(code: str) -> None:
    assert json.loads(run(code + LOADED, "--help").splitlines()[-1]) == []


@pytest.mark.parametrize("command", ["specialize", "train", "evaluate", "embed", "report", "export", "models"])
def test_help_of_a_command_imports_nothing_heavy(command: str) -> None:
    printed = run(HELP + LOADED, command, "--help")
    assert json.loads(printed.splitlines()[-1]) == []
    assert command in printed


def test_import_takes_no_time() -> None:
    assert seconds("import specialsam") < SLACK * 0.3


def test_help_takes_little_time() -> None:
    assert seconds(HELP, "--help") < SLACK * 0.7


PUBLIC = {
    *("Embedding", "Prediction", "Prompts", "Segmenter", "SpecialSamError", "__version__", "advise", "audit"),
    *("evaluate", "load_model", "open_dataset", "read_image", "specialize", "using", "zoom"),
}
"""The names that users may build on: taking one away is a change that the changelog must tell."""


def test_the_public_face_is_whole_and_documented() -> None:
    assert set(specialsam.__all__) == PUBLIC
    for name in PUBLIC - {"__version__"}:
        assert getattr(specialsam, name).__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = specialsam.nothing  # type: ignore[attr-defined]


def test_no_function_takes_the_place_of_a_submodule() -> None:
    """`import specialsam.a.b as m` must give a module: oracle, the import system's own listing."""
    for module in pkgutil.walk_packages(specialsam.__path__, "specialsam."):
        importlib.import_module(module.name)
        parent, _, last = module.name.rpartition(".")
        assert getattr(importlib.import_module(parent), last) is sys.modules[module.name], module.name


def test_every_public_name_exists() -> None:
    """Oracle: each module's own `__all__`, and the version in the package's metadata form."""
    checked = 0
    for module in pkgutil.walk_packages(specialsam.__path__, "specialsam."):
        loaded = importlib.import_module(module.name)
        names = getattr(loaded, "__all__", ())
        checked += len(names)
        assert [name for name in names if not hasattr(loaded, name)] == [], module.name
    assert checked > 0
    assert all(part.isdigit() for part in specialsam.__version__.split(".")[:2])
