"""Work spread over the machines of a Ray cluster: a worker a GPU (or a share of one), whole items to whoever is free.

Ray Data hands the items out and starts a dead worker's item anew somewhere else, so work must do no harm done twice.
Ray is needed here alone (extra `cluster`), and it is told to report its use to nobody.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from math import floor
from typing import Any, Generic, Literal, NoReturn, TypeVar

from pydantic import Field

from specialsam.core.errors import SpecialSamError, UsageError
from specialsam.core.settings import Settings, parse_settings

Given = TypeVar("Given")
Answer = TypeVar("Answer")
LOOPBACK = "127.0.0.1"
STAY_HERE = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""At 0 Ray takes the loopback for this machine's address, as it does on those systems; read when Ray is imported."""
PATIENCE = 100
"""Workers in a row that may be killed while they start before the cluster is given up."""
STORE_BYTES = 256 << 20
"""Object store of a cluster that is started here for one call: records and answers are small, images do not pass it."""


class ClusterSettings(Settings):
    """How work is spread over a cluster: by which program, and what each worker gets."""

    by: Literal["ray"] = Field("ray", description="the program that spreads work")
    address: str = Field("", description="of the cluster's head; empty: RAY_ADDRESS, or one started for this call")
    workers: int = Field(0, description="workers; 0: as many as there is room for", ge=0)
    gpus: float = Field(0.0, description="share of a GPU for each worker: 0.25 puts four on one", ge=0)
    cpus: float = Field(1.0, description="CPU cores for each worker", gt=0)
    images: int = Field(
        64, description="images handed out at once: so many lie in a shard, and so many a kill loses", ge=1
    )


def cluster_of(by: str | None, given: dict[str, object]) -> ClusterSettings | None:
    """Take the group `cluster` out of nested settings; None where nothing is to be spread (`by` None).

    UsageError for wrong values, and for settings of a cluster that is not asked for.
    """
    stated = given.pop("cluster", None)
    if by is None:
        if stated is not None:
            raise UsageError("settings: cluster: expected --cluster ray beside them, got none")
        return None
    if stated is not None and not isinstance(stated, dict):
        raise UsageError(f"settings: cluster: expected settings by name, got {type(stated).__name__}")
    if by != "ray":
        raise UsageError(f"expected --cluster ray, got {by!r}")
    return parse_settings(ClusterSettings, stated or {})


class _Worker(Generic[Given, Answer]):
    """One actor: makes its work once, from a pickle, and answers items; what that or an item raises is its answer."""

    def __init__(self, make: bytes) -> None:
        self.work: Callable[[Given], Answer]
        try:
            self.work = pickle.loads(make)()
        except Exception as error:
            self.work = partial(_raise, error)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        return {"number": batch["number"], "answer": [self._answer(item) for item in batch["item"]]}

    def _answer(self, item: bytes) -> bytes:
        try:
            return pickle.dumps((self.work(pickle.loads(item)), None))
        except Exception as error:
            return pickle.dumps((None, error if isinstance(error, SpecialSamError) else _told(error)))


def _raise(error: Exception, _: object) -> NoReturn:
    raise error


def _told(error: Exception) -> SpecialSamError:
    return SpecialSamError(f"a worker of the cluster failed: {type(error).__name__}: {error}")


@contextmanager
def connected(how: ClusterSettings) -> Iterator[int]:
    """Connect to the cluster at the settings' or RAY_ADDRESS's address, else to one started here for this call.

    Gives the number of workers that there is room for, or that is asked for. UsageError where Ray is not installed or
    there is no cluster at the address.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # workers without a GPU: as Ray will have it
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # Ray writes into its own folder, not between our lines
    os.environ.setdefault("RAY_DATA_LOG_LEVEL", "ERROR")
    address = how.address or os.environ.get("RAY_ADDRESS") or ""
    if not address or address.startswith((LOOPBACK, "localhost")):
        os.environ.setdefault(STAY_HERE, "0")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise UsageError(
            "--cluster ray needs the package ray; install it: pip install 'specialsam[cluster]'"
        ) from error
    own = not ray.is_initialized()
    if own:
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        try:
            if address:
                ray.init(address, **quiet)
            else:
                here = {"include_dashboard": False, "_node_ip_address": LOOPBACK, "object_store_memory": STORE_BYTES}
                ray.init("local", **here, **quiet)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise UsageError(f"expected a Ray cluster at {address or 'this machine'}, found none ({error})") from error
    try:
        there = ray.cluster_resources()
        have, share = (there.get("GPU", 0), how.gpus) if how.gpus else (there.get("CPU", 0), how.cpus)
        room = floor(have / share + 1e-9)  # 1 // 0.2 is 4
        if room < 1:
            asked = f"{how.gpus:g} GPU" if how.gpus else f"{how.cpus:g} CPU"
            raise UsageError(f"expected a cluster with room for a worker of {asked}, got {_named(there)}")
        yield min(how.workers or room, room)
    finally:
        if own:
            ray.shutdown()


def _named(resources: dict[str, float]) -> str:
    return ", ".join(f"{resources.get(name, 0):g} {name}" for name in ("GPU", "CPU"))


def spread(
    make: Callable[[], Callable[[Given], Answer]], items: Sequence[Given], how: ClusterSettings, workers: int
) -> Iterator[tuple[int, Answer]]:
    """(place, answer) of each item as they come, in any order; within `connected`.

    `make` is called once in each worker and gives what answers an item there; it, items and answers are pickled. What
    an item raises is raised here. An item whose worker dies is given to another one.
    """
    if not items:
        return
    import ray
    from ray import cloudpickle

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = False
    context.max_consecutive_actor_init_deaths = PATIENCE
    rows = [{"number": number, "item": pickle.dumps(item)} for number, item in enumerate(items)]
    size = min(workers, len(rows))
    answers = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
        _Worker,
        fn_constructor_args=(cloudpickle.dumps(make),),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=size),
        num_cpus=how.cpus,
        num_gpus=how.gpus or None,
    )
    for row in _rows(answers):
        answer, error = pickle.loads(row["answer"])
        if error is not None:
            raise error
        yield int(row["number"]), answer


def in_order(work: Callable[[Given], Answer], items: Sequence[Given], how: ClusterSettings) -> Iterator[Answer]:
    """`work(item)` of each item in order, as `place.alone` gives it; `work` is pickled with all that it holds."""
    with connected(how) as workers:
        size = max(1, min(how.images, -(-len(items) // (4 * workers))))
        chunks = [items[start : start + size] for start in range(0, len(items), size)]
        early: dict[int, list[Answer]] = {}
        due = 0
        for number, answers in spread(partial(_all_by, work), chunks, how, workers):
            early[number] = answers
            while due in early:
                yield from early.pop(due)
                due += 1


def _all_by(work: Callable[[Given], Answer]) -> Callable[[Sequence[Given]], list[Answer]]:
    return lambda chunk: [work(item) for item in chunk]


def _rows(answers: Any) -> Iterator[dict[str, Any]]:
    """Rows as they come; what Ray itself raises becomes one line."""
    from ray.exceptions import RayError

    try:
        yield from answers.iter_rows()
    except RayError as error:
        reason = " ".join(str(error).split())[-300:]
        raise SpecialSamError(f"the cluster gave up ({reason}); what was finished is kept, start it again") from error
