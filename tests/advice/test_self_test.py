"""The planted-fault suite: each fault is named by its own check, clean data raises no alarm.

The oracle is the planting itself. Faults that show before training run here one by one; those that need training, and
ten clean runs, are the command `specialsam audit --self-test`, of which two faults and one clean run are tried.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from specialsam.advice.checks.audit import CHECKS
from specialsam.advice.checks.faults import FAULTS
from specialsam.advice.checks.self_test import confusion, run_self_test

BEFORE = [name for name, fault in FAULTS.items() if not fault.trained]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("self-test")


@pytest.mark.parametrize("name", BEFORE)
def test_a_fault_in_the_data_is_named(name: str, folder: Path) -> None:
    trial = run_self_test(folder, [name], 0)[0]
    assert trial.right, f"{name}: expected {trial.expected}, got {trial.alarms}"


def test_faults_of_training_are_named_and_a_clean_run_is_silent(folder: Path) -> None:
    names = ["decoder ignores its prompt", "early stopping on test"]
    trials = run_self_test(folder, names, 1)
    table = confusion(trials)
    assert all(trial.right for trial in trials), table
    assert "2 of 2 faults named by the right check, 0 of 1 clean runs raised an alarm" in table


def test_every_fault_has_a_check_that_exists_and_there_are_at_least_sixteen() -> None:
    after = {
        *("blind decoder", "training stability", "validation gain", "prompt ignored"),
        *("validation on test data", "encoder unchanged"),
    }
    assert len(FAULTS) >= 16
    for name, fault in FAULTS.items():
        assert set(fault.checks) <= set(CHECKS) | after, name
