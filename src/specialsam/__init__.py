"""Turn a generalist segmenter into a specialist for a narrow domain, and tell the truth about whether it was worth it.

The public face; everything is imported when it is first used. The jobs are those of the command line:

- `load_model` gives a `Segmenter`, whose `encode` makes an `Embedding` and whose `decode` answers `Prompts` with a
  `Prediction`, which `zoom` looks at a second time; `read_image` and `open_dataset` read what is on disk;
- `audit`, `advise`, `specialize` and `evaluate` run a job and leave a folder with its page and tables;
- every error that a user can mend is a `SpecialSamError` of one line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from specialsam.api import advise, audit, evaluate, specialize
    from specialsam.core.console import using
    from specialsam.core.errors import SpecialSamError
    from specialsam.core.types import Embedding, Prediction, Prompts
    from specialsam.data.images import read_image
    from specialsam.data.open import open_dataset
    from specialsam.models.load import load_model
    from specialsam.models.segmenter import Segmenter
    from specialsam.models.zoom import zoom

__version__ = "0.1.0"
__all__ = [
    "Embedding",
    "Prediction",
    "Prompts",
    "Segmenter",
    "SpecialSamError",
    "__version__",
    "advise",
    "audit",
    "evaluate",
    "load_model",
    "open_dataset",
    "read_image",
    "specialize",
    "using",
    "zoom",
]
_HOMES = {
    "advise": "api",
    "audit": "api",
    "evaluate": "api",
    "specialize": "api",
    "using": "core.console",
    "SpecialSamError": "core.errors",
    "Embedding": "core.types",
    "Prediction": "core.types",
    "Prompts": "core.types",
    "read_image": "data.images",
    "open_dataset": "data.open",
    "load_model": "models.load",
    "Segmenter": "models.segmenter",
    "zoom": "models.zoom",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
