"""Proposing: TPE in this process, GP in a helper, and no torch in a supervisor."""

import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.store.specs import Bench, claim_trial, finish, make_ranged
from tuner.errors import MachineError
from tuner.spec.study import Spec
from tuner.store import sampling
from tuner.store.database import Database
from tuner.store.ledger.leases import Proposal
from tuner.work.proposer import Proposer

GP = {"n_startup_trials": 2}


def inside(spec: Spec, chosen: object) -> None:
    """Check that parameters are in the space, with exactly the active ones."""
    assert isinstance(chosen, dict)
    known = sampling.distributions(spec)
    for name, value in chosen.items():
        assert known[name]._contains(known[name].to_internal_repr(value))
    assert ("momentum" in chosen) == (chosen["optimizer"] == "sgd")


@pytest.mark.parametrize(("sampler", "options"), [("tpe", GP), ("gp", GP)])
def test_proposals_lie_inside_the_space(
    database: Database, sampler: str, options: dict[str, int], tmp_path: Path
) -> None:
    """With finished trials to learn from, a proposal has exactly the active parameters."""
    spec = make_ranged(trials=8, sampler=sampler, sampler_options=options)
    bench = Bench.launch(database, spec)
    worker = bench.worker()
    for loss in (0.5, 0.4, 0.3):
        finish(worker, claim_trial(worker), loss)
    before = set(Path(tempfile.gettempdir()).glob("tuner-proposer-*"))
    proposer, ticks = Proposer(bench.study, 1, tmp_path / "log"), []
    try:
        trials = worker.observations()
        first = proposer.propose(trials, 3, lambda: ticks.append(1))
        again = proposer.propose(trials, 3, lambda: ticks.append(1))
        other = proposer.propose(trials, 4, lambda: ticks.append(1))
    finally:
        proposer.close()
    assert set(Path(tempfile.gettempdir()).glob("tuner-proposer-*")) <= before
    inside(spec, first.chosen)
    assert first == again
    assert (first.configuration, other.configuration) == (3, 4)
    assert sampler == "gp" or other.chosen != first.chosen


LEARNT = {"n_startup_trials": 2}
HYPERBAND = {"pruner": "hyperband", "pruner_options": {"min_resource": 1, "max_resource": 3}}


@pytest.mark.parametrize(
    ("search", "waits"),
    [
        ({"sampler_options": LEARNT}, True),
        ({"sampler_options": LEARNT | {"constant_liar": True}}, False),
        ({"sampler_options": LEARNT} | HYPERBAND, False),
    ],
    ids=["tpe", "liar", "hyperband"],
)
def test_overtaken_workers_draw_for_themselves(
    database: Database, search: dict[str, Any], *, waits: bool, tmp_path: Path
) -> None:
    """Each has its own random stream, for any configuration, unless a given one is required."""
    spec = make_ranged(trials=8, sampler="tpe")
    spec = replace(spec, search=replace(spec.search, **search))
    bench = Bench.launch(database, spec)
    worker = bench.worker()
    for loss in (0.5, 0.4, 0.3):
        finish(worker, claim_trial(worker), loss)
    trials = worker.observations()
    proposers = [Proposer(bench.study, number, tmp_path / "log") for number in (1, 2)]

    def proposals() -> list[Proposal]:
        return [one.propose(trials, 3, lambda: None) for one in proposers]

    alone = proposals()
    assert alone[0] == alone[1]
    for one in proposers:
        one.overtaken()
    if not waits:
        assert proposals() == alone
        return
    apart = proposals()
    assert [one.configuration for one in apart] == [None, None]
    assert len({str(one.chosen) for one in (alone[0], *apart)}) == 3
    assert proposals() == apart
    for proposal in apart:
        inside(spec, proposal.chosen)


def test_a_helper_that_dies_is_told(
    database: Database, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """If the helper cannot start, the error has its output; nothing hangs."""
    bench = Bench.launch(database, make_ranged(sampler="gp", sampler_options=GP))
    monkeypatch.setattr(sys, "executable", "/bin/false")
    proposer = Proposer(bench.study, 1, tmp_path / "log")
    with pytest.raises(MachineError, match="helper of the gp sampler died"):
        proposer.propose([], 0, lambda: None)


def test_asking_for_gp_loads_no_torch_here(tmp_path: Path) -> None:
    """A supervisor with the gp sampler's proposer does not load torch."""
    code = (
        "import sys; from pathlib import Path\n"
        "import tuner.work.proposer, tuner.work.supervisor, tuner.work.worker\n"
        "import tuner.cli.worker, tuner.fleet.local\n"
        "from tests.store.specs import make_ranged\n"
        "from types import SimpleNamespace\n"
        "spec = make_ranged(sampler='gp', sampler_options={'n_startup_trials': 1})\n"
        "study = SimpleNamespace(spec=spec, optuna_name='s')\n"
        "proposer = tuner.work.proposer.Proposer(study, 1, Path(sys.argv[1]))\n"
        "print(proposer.propose([], 0, lambda: None)); proposer.close()\n"
        "assert not [name for name in sys.modules if name.split('.')[0].startswith('torch')]\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "log")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "optimizer" in done.stdout
