"""The same command in two processes: the same tables and weights. Oracle: the command in one process."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest
import torch
from disc_data import discs
from safetensors.torch import load_file

RATE = 3e-4
SETTINGS = ("train.epochs=2", f"train.lr={RATE}", "evaluate.groups=[overlap]", "evaluate.strategies=[interior,box]")
SETTINGS += ("duplicates=false", "guard.retention_images=6", "probes=6", "train.replay_pool=6", "finder.epochs=3")
SETTINGS += ("finder.grid=2",)
KEY = ["model", "record", "object", "strategy", "output", "metric"]


def command(data: Path, out: Path, *launch: str, times: int = 1) -> subprocess.CompletedProcess[str]:
    """Start the job `times` at once, as on so many machines: the worst exit code, and all that was said."""
    options = [part for setting in SETTINGS for part in ("-s", setting)]
    words = ["-m", "specialsam.cli", "specialize", str(data), "-o", str(out), *options]
    root = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    called = [sys.executable, *launch, *words]

    def run(_: int) -> subprocess.CompletedProcess[str]:
        return subprocess.run(called, capture_output=True, text=True, check=False, env=os.environ | root)

    with ThreadPoolExecutor(times) as pool:
        ends = list(pool.map(run, range(times)))
    said, complained = "".join(end.stdout for end in ends), "".join(end.stderr for end in ends)
    return subprocess.CompletedProcess(called, max(abs(end.returncode) for end in ends), said, complained)


def torchrun() -> tuple[str, ...]:
    """One of two launchers of a process each, which meet at a port: as on two machines (docs/cluster.md)."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    meet = ("--rdzv_backend", "c10d", "--rdzv_endpoint", f"127.0.0.1:{port}", "--rdzv_id", "1")
    return "-m", "torch.distributed.run", "--nnodes", "2", "--nproc_per_node", "1", *meet, "--local_addr", "127.0.0.1"


def accelerate_launch(folder: Path) -> tuple[str, ...]:
    """On CPUs accelerate starts its processes by mpirun, whatever --num_processes says without a host file."""
    if shutil.which("mpirun") is None:
        pytest.skip("no mpirun on this machine: apt-get install openmpi-bin")
    (folder / "hosts").write_text("localhost slots=2\n")
    plain = ("--mixed_precision", "no", "--dynamo_backend", "no", "--num_machines", "1")
    options = ("--cpu", "--num_processes", "2", "--mpirun_hostfile", str(folder / "hosts"), *plain)
    return "-m", "accelerate.commands.launch", *options


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `data` and of the run `one`, in one process."""
    folder = tmp_path_factory.mktemp("processes")
    done = command(discs(folder / "data", 40), folder / "one")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("launcher", ["torchrun", "accelerate launch"])
def test_two_processes_end_as_one(single: Path, tmp_path: Path, launcher: str) -> None:
    """Tables to 1e-4, weights to 1e-6 in the mean; then the same two go on in their folder, and one alone."""
    launch = torchrun() if launcher == "torchrun" else accelerate_launch(tmp_path)
    folders = single / "one", tmp_path / "two"
    times = 2 if launcher == "torchrun" else 1
    two = command(single / "data", folders[1], *launch, times=times)
    assert two.returncode == 0, two.stderr[-2000:]
    assert two.stdout.count("report: ") == 1
    tables = [pd.read_parquet(folder / "results.parquet").sort_values(KEY) for folder in folders]
    pd.testing.assert_frame_equal(*(table[KEY].reset_index(drop=True) for table in tables))
    assert tables[0]["value"].to_numpy() == pytest.approx(tables[1]["value"].to_numpy(), abs=1e-4)
    for name in ("comparison.csv", "means.csv", "summary.csv"):
        frames = [pd.read_csv(folder / name) for folder in folders]
        pd.testing.assert_frame_equal(*frames, atol=1e-4, rtol=0)
    weights = [load_file(folder / "specialist" / "model.safetensors") for folder in folders]
    apart = torch.cat([(tensor - weights[1][name]).abs().flatten() for name, tensor in weights[0].items()])
    assert float(apart.mean()) < 1e-6
    assert float(apart.max()) < RATE, "where a gradient is nothing but rounding, AdamW may step either way"
    facts = [json.loads((folder / "run.json").read_text()) for folder in folders]
    assert [fact["machine"]["processes"] for fact in facts] == [1, 2]
    report = [(folder / "report.html").read_text() for folder in folders]
    assert all("clicks" in page for page in report)
    if launcher != "torchrun":
        return  # how processes were started is of no account to those that go on
    further = command(single / "data", folders[1], *torchrun(), times=times)
    assert further.returncode == 0, further.stderr[-2000:]
    assert "embeddings: 0 made" in further.stdout
    again = command(single / "data", folders[1])
    assert (again.returncode, again.stderr) == (0, "")
    assert "embeddings: 0 made" in again.stdout
