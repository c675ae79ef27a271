"""Promises 1 to 5 hold under every named fault, alone and all mixed. ``make faults`` does the same for longer, on more connections.

One daemon serves all of them: each run has specimens of its own. What counts against labbridge is shown to be counted.
"""

import copy
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from labbridge.simulators import analyzer, faulty
from labbridge.simulators.faults import FAULTS
from tests.faults.harness import ALL, KINDS, Fray, Load, faults, laboratory
from tests.faults.model import COUNTERS, Model, Score
from tests.support import Laboratory

BRIEF = Load(seconds=1.2, connections=4, seed=1, rate=25.0, pace=0.02, excess=1 << 20, share=0.25)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laboratory]:
    running = laboratory(tmp_path_factory.mktemp("faults"), limit="512KiB")
    try:
        yield running
    finally:
        assert running.stop() == 0


@pytest.mark.parametrize("fault", FAULTS)
def test_nothing_is_lost_doubled_misfiled_or_out_of_order_under(fault: str, lab: Laboratory) -> None:
    score = faults(lab, fault, BRIEF)
    assert score.problems == []
    assert score.counts == dict.fromkeys(COUNTERS, 0)
    assert score.drawn[fault] > 0
    assert score.acknowledged > BRIEF.few


def test_nothing_is_lost_doubled_misfiled_or_out_of_order_under_all_faults_mixed(lab: Laboratory) -> None:
    score = faults(lab, ALL, BRIEF._replace(seconds=8.0, connections=8))
    assert score.problems == []
    assert len(score.drawn) >= KINDS


# -- every counter bites -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fair(lab: Laboratory) -> Fray:
    """A run without a fault, about which the lies are told."""
    fray = Fray(lab, "split", BRIEF._replace(seconds=0.5, few=24, share=0.0))  # few: of one specimen more than one version
    assert fray.run().problems == []
    return fray


def lost(model: Model) -> None:
    """The hospital never got the last message."""
    last = model.taken[-1][0]
    model.taken = [taken for taken in model.taken if taken[0] != last]


def never_sent(model: Model) -> None:
    """The analyzer was told that something is stored that never came."""
    model.values["000000000000", 1] = {"WBC": "5.00"}
    model.acknowledged.append(("000000000000", 1))


def doubled(model: Model) -> None:
    """A message came again as another."""
    control_id, message = model.taken[0]
    model.taken.append(("ANOTHER", message.replace(control_id.encode(), b"ANOTHER")))


def changed(model: Model) -> None:
    """A message came again with another content."""
    control_id, message = model.taken[0]
    model.taken.append((control_id, message + b"NTE|1\r"))


def patient_of(message: bytes) -> bytes:
    return message.partition(b"\rPID|")[2].split(b"|")[2]


def two_patients(model: Model) -> tuple[bytes, bytes]:
    """The first message, and one of another patient."""
    first = model.taken[0][1]
    return first, next(message for _, message in model.taken if patient_of(message) != patient_of(first))


def misfiled(model: Model) -> None:
    """The results of one specimen stand under another's."""
    one, other = two_patients(model)
    head, tail = one.partition(b"\rOBX")[0], other[other.index(b"\rOBX") :]
    model.taken[0] = (model.taken[0][0], head + tail)


def another_patient(model: Model) -> None:
    """A message names the patient of another."""
    one, other = two_patients(model)
    model.taken[0] = (model.taken[0][0], one.replace(patient_of(one), patient_of(other)))


def out_of_order(model: Model) -> None:
    """What was measured later came first."""
    model.taken.reverse()


@pytest.mark.parametrize(
    ("lie", "counter"),
    [
        (lost, "lost"),
        (never_sent, "lost"),
        (doubled, "doubled"),
        (changed, "doubled"),
        (misfiled, "misfiled"),
        (another_patient, "misfiled"),
        (out_of_order, "inversions"),
    ],
)
def test_a_lie_is_counted(fair: Fray, lie: Callable[[Model], None], counter: str) -> None:
    model, score = copy.copy(fair.model), Score()
    model.taken, model.acknowledged, model.values = list(model.taken), list(model.acknowledged), dict(model.values)
    model.judge(score, lambda key: "released")
    assert score.problems == []
    lie(model)
    model.judge(score, lambda key: "released")
    assert score.counts[counter] > 0


def test_what_is_not_in_the_journal_counts_as_lost(fair: Fray) -> None:
    score = Score()
    fair.model.judge(score, lambda key: "")
    assert score.counts["lost"] == len(set(fair.model.acknowledged)) > 0


def test_a_daemon_that_does_not_answer_in_time_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is stopped for longer than the protocol allows, which here is a second."""
    monkeypatch.setattr(faulty, "ANSWER_S", 1.0)
    monkeypatch.setattr(analyzer, "ANSWER_S", 6.0)
    stopped = laboratory(tmp_path)
    try:
        fray = Fray(stopped, "split", BRIEF._replace(seconds=3.0, share=0.0))

        def told(message: bytes, fate: str) -> None:
            fray.model.heard(message, fate)
            if len(fray.model.acknowledged) == 5:
                stopped.signal(signal.SIGSTOP)
                fray.loop.callLater(2.0, stopped.signal, signal.SIGCONT)

        for one in fray.analyzers:
            one.told = told
        score = fray.run()
    finally:
        stopped.signal(signal.SIGCONT)
        stopped.stop()
    assert score.counts["missed"] > 0
    assert score.slowest > 1.0
    assert [name for name in COUNTERS if score.counts[name]] == ["missed"]
