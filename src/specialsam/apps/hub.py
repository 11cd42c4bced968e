"""Specialists to and from the Hugging Face hub: whole or not at all, private unless told, checked on arrival."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

from specialsam.apps.model_card import Terms, check_terms, write_card_page
from specialsam.core.errors import SpecialSamError, UsageError
from specialsam.models.finder_files import FINDER, MEMORY
from specialsam.models.specialist import FILE, WEIGHTS, check_files, read_card, write_card

PAGE, LICENCE = "README.md", "LICENSE"
FILES = (FILE, WEIGHTS, FINDER, MEMORY)
"""All that a specialist is made of; nothing else of its folder goes to others."""
Answer = TypeVar("Answer")


def push(folder: Path, repo_id: str, terms: Terms, *, public: bool = False, licence: Path | None = None) -> str:
    """Put a specialist folder and its page into a model repository of the hub; the repository's address.

    The repository is made private where it does not exist; one that is public is refused unless `public`. `licence` is
    a file that goes along: for bases under Apache-2.0 its text does. All goes in one commit. Raises UsageError where it
    may not be shared (`check_terms`), ModelError for a damaged folder, SpecialSamError in one line for what the
    hub refuses.
    """
    check_files(folder)
    card, base_licence = check_terms(read_card(folder), terms)
    text = _licence_text(base_licence, licence)
    from huggingface_hub import HfApi

    api = HfApi()
    with tempfile.TemporaryDirectory(prefix="specialsam-push-") as made:
        stage = Path(made)
        for name in FILES:
            if (folder / name).exists():
                shutil.copy2(folder / name, stage / name)
        write_card(stage, card)
        (stage / PAGE).write_text(write_card_page(card, base_licence, repo_id, folder), encoding="utf-8")
        if text:
            (stage / LICENCE).write_text(text, encoding="utf-8")
        _asked(repo_id, lambda: api.create_repo(repo_id, private=not public, exist_ok=True))
        if not public and not _asked(repo_id, lambda: api.model_info(repo_id)).private:
            raise UsageError(f"expected {repo_id} to be private, it is public; add --public, or take another name")
        message = f"{card.name}, from specialsam"
        gone = [name for name in (*FILES, LICENCE) if not (stage / name).exists()]
        _asked(
            repo_id,
            lambda: api.upload_folder(
                repo_id=repo_id, folder_path=stage, commit_message=message, delete_patterns=gone or None
            ),
        )
    return f"{api.endpoint}/{repo_id}"


def pull(repo_id: str, out: Path, revision: str | None = None) -> Path:
    """Fetch a specialist from the hub into a new folder `out`, beside it first, and check every tensor's hash.

    Raises UsageError where `out` holds something, ModelError for what is no specialist or not whole.
    """
    out = out.absolute()
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise UsageError(f"expected a new folder to fetch to, {out} is there already; choose another with --out")
    from huggingface_hub import snapshot_download

    out.parent.mkdir(parents=True, exist_ok=True)
    beside = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        names = [*FILES, PAGE, LICENCE]
        _asked(repo_id, lambda: snapshot_download(repo_id, revision=revision, local_dir=beside, allow_patterns=names))
        shutil.rmtree(beside / ".cache", ignore_errors=True)
        check_files(beside)
        if out.is_dir():
            out.rmdir()
        beside.rename(out)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return out


def _licence_text(base_licence: str, given: Path | None) -> str:
    """The text that goes along; UsageError where the base's licence asks for one that is not here."""
    if given is not None:
        try:
            return given.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise UsageError(f"expected a text file for --licence-file, got {given}") from error
    if base_licence.lower() == "apache-2.0":
        for path in metadata.files("specialsam") or []:
            if path.name == "LICENSE":
                return path.read_text(encoding="utf-8") or ""
        return ""
    raise UsageError(
        f"expected the text of the base's licence ({base_licence}), which has to go along; give it: --licence-file"
    )


def _asked(repo_id: str, ask: Callable[[], Answer]) -> Answer:
    """What the hub answers; its refusals in one line that never holds the token."""
    from huggingface_hub import get_token
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        return ask()
    except HFValidationError as error:
        raise UsageError(f"expected a hub id as owner/name, got {repo_id!r}") from error
    except GatedRepoError as error:
        raise SpecialSamError(f"the hub asks for consent to the terms of {repo_id}; give it on its page") from error
    except RepositoryNotFoundError as error:
        raise SpecialSamError(
            f"the hub has no {repo_id}, or keeps it from this token; look at the name, or log in: hf auth login"
        ) from error
    except HfHubHTTPError as error:
        status: Any = getattr(error.response, "status_code", "no")
        hint = "log in with a token that may write: hf auth login" if status in (401, 403) else "try again later"
        raise SpecialSamError(f"the hub refused {repo_id} (status {status}); {hint}") from error
    except Exception as error:
        network = type(error).__module__.partition(".")[0] in ("httpx", "httpx2", "requests", "urllib3")
        if not network and not isinstance(error, (LocalEntryNotFoundError, OSError)):
            raise
        said = str(error).replace(get_token() or "\0", "***").splitlines()[0][:200]
        raise SpecialSamError(
            f"cannot reach the hub for {repo_id} ({type(error).__name__}: {said}); try again"
        ) from error
