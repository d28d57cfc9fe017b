"""A study's code and data: fixed by its first trial, and replaceable until there is a result."""

from dataclasses import replace

from tests.store.specs import Bench, claim_trial, finish, make_spec
from tuner.records import DataIdentity, Identity
from tuner.store import control, studies
from tuner.store.optuna_storage import Binding

DATA = DataIdentity(keys="{}", fingerprint="d" * 8, counts={"train": {"no": 2, "yes": 2}})
BROKEN = Identity(files={"lab/models.py": "1" * 64}, packages={}, data=DATA, tuner="0", trainer="t")
MENDED = replace(BROKEN, files={"lab/models.py": "2" * 64})


def go_on(bench: Bench) -> None:
    """Launch the stored study again."""
    with bench.database.transaction() as connection:
        studies.go_on(connection, bench.study.ref)


def test_code_is_mended_before_the_first_result(bench: Bench) -> None:
    """Launched again or retried after its trials failed, the study takes the corrected code."""
    worker = bench.worker()
    trial = claim_trial(worker)
    assert worker.identify(trial, BROKEN) == []
    worker.give_back(trial, "its code is broken")
    trial = claim_trial(worker)
    assert worker.identify(trial, MENDED) == ["lab/models.py changed"]
    worker.give_back(trial, "other code")
    go_on(bench)
    trial = claim_trial(worker)
    assert worker.identify(trial, MENDED) == []
    worker.give_back(trial, "for a retry")
    control.retry(bench.database, Binding(bench.database), bench.study, [])
    assert worker.identify(claim_trial(worker), BROKEN) == []


def test_code_stays_while_a_trial_is_trained_by_it(bench: Bench) -> None:
    """The holder of a trial may complete it with the old code, even after its lease expired."""
    worker = bench.worker()
    trial = claim_trial(worker)
    assert worker.identify(trial, BROKEN) == []
    bench.expire(trial)
    go_on(bench)
    other = bench.worker()
    adopted = claim_trial(other)
    assert adopted.trial_id == trial.trial_id
    assert other.identify(adopted, MENDED) == ["lab/models.py changed"]


def test_code_stays_once_there_is_a_result(bench: Bench) -> None:
    """A complete trial fixes the study's code."""
    worker = bench.worker()
    trial = claim_trial(worker)
    assert worker.identify(trial, BROKEN) == []
    finish(worker, trial)
    go_on(bench)
    assert worker.identify(claim_trial(worker), MENDED) == ["lab/models.py changed"]


def test_studies_are_apart(bench: Bench) -> None:
    """The code of one study does not affect another."""
    worker = bench.worker()
    assert worker.identify(claim_trial(worker), BROKEN) == []
    other = Bench.launch(bench.database, make_spec("another")).worker()
    assert other.identify(claim_trial(other), MENDED) == []
