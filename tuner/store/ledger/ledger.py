"""The ledger: who trains which trial and with what result, exactly once.

Every method is one transaction that checks the token and writes our rows and
Optuna's; it can be repeated when the answer to its commit is lost. Large
predictions are stored before the transaction that links them (`uploads`).

Order of locks, so that no two transactions deadlock: the study's
advisory lock, then the trial's lease row, then the study's row, then the
worker's row.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial

from tuner.records import Dataset, Epoch, Identity, Predictions, Result, Setup
from tuner.settings import Timing
from tuner.store import identities, uploads
from tuner.store.database import Database
from tuner.store.ledger import claims, endings, recording, workers
from tuner.store.ledger.leases import Answer, Company, Lease, Proposal, Recorded, Sequel
from tuner.store.ledger.looks import Decided
from tuner.store.ledger.observations import Observations
from tuner.store.ledger.recording import Recorder
from tuner.store.ledger.reuse import Marks, Sharing
from tuner.store.ledger.transactions import Past, Transaction
from tuner.store.optuna_storage import Binding
from tuner.store.spending import Used
from tuner.store.studies import Study


@dataclass
class Ledger:
    """The ledger of one study, used by one worker's main loop."""

    database: Database
    binding: Binding
    study: Study
    worker_id: int
    timing: Timing
    marks: Marks | None = None
    """Finds the first epochs that jobs share; None if no checkpoints are kept."""
    used: Callable[[], Used] = Used
    """Returns what this worker has used so far."""
    progressed: Callable[[], None] = lambda: None
    """Called after epochs have been stored or a trial has ended."""

    def __post_init__(self) -> None:
        spec = self.study.spec
        self._recorder = Recorder(spec, self.study.optuna_name)
        self._past = Past()
        self._observations = Observations()
        # Trials wait for a peer's epochs only if checkpoints are kept, and not where trials pause:
        # then the peer may not continue for hours.
        keep = spec.checkpoints.keep == "auto"
        shares = spec.search.sampler == "grid" and keep and not spec.promotes
        self.sharing = Sharing(spec, self.marks) if shares and self.marks else None

    def claim(
        self, proposal: Proposal | None, *, adopt: bool, company: Company | None = None
    ) -> Answer:
        """Ask for a trial, perhaps to train it beside others.

        `adopt` allows taking over expired leases.
        """
        if self.sharing is not None:
            # Peers wait for the study's lock, so as much as possible is computed beforehand.
            with self.database.transaction() as connection:
                ahead = claims.configurations_ahead(connection, self.study, self._past)
            self.sharing.prepare(ahead)
        with self._transaction() as transaction:
            return claims.claim(transaction, proposal, adopt=adopt, company=company)

    def decide(self, decided: Decided) -> bool:
        """Store the decision of a look, unless a peer has done so or it is no longer due."""
        with self._transaction() as transaction:
            return claims.decide(transaction, decided)

    def identify(self, lease: Lease, identity: Identity) -> list[str]:
        """Compare a trial's code and data with the study's, and return the differences.

        If there are any, the trial must not be recorded.
        """
        with self._transaction() as transaction:
            transaction.hold(lease)
            return identities.check(transaction.connection, self.study.study_id, identity)

    def record(self, lease: Lease, epochs: Sequence[Epoch], checkpoint: int = 0) -> Recorded:
        """Store epochs, ask the pruner about each in order, and say where to stop.

        `checkpoint` is the epoch of a checkpoint saved since the last call, for the history.
        """
        with self._transaction() as transaction:
            recorded = self._recorder.record(transaction, lease, epochs, checkpoint)
            # With a budget of hours or money, each epoch is stored together with its cost.
            # Otherwise renewals are exact enough, and an epoch takes one statement less.
            if self.study.spec.budget.limited:
                self._charge(transaction)
        if recorded.stored:
            self.progressed()
        return recorded

    def complete(
        self,
        lease: Lease,
        setup: Setup,
        dataset: Dataset,
        result: Result,
        progress: uploads.Progress = lambda *_: None,
    ) -> None:
        """End a trial that ran to its end: figures, predictions, Optuna's state.

        Large arrays are stored first, outside the transaction; `progress` is called
        meanwhile, and may cancel it by raising.
        """
        if uploads.has_large_labels(dataset):
            with self.database.autocommit() as connection:
                endings.keep_dataset(connection, dataset)
        large = [predictions for predictions in result.predictions if uploads.is_large(predictions)]
        if large and self._begin_upload(lease, large):
            with self.database.autocommit() as connection:
                uploads.send(connection, lease, large, progress)
        with self._transaction() as transaction:
            endings.complete(transaction, lease, setup, dataset, result)
            self._charge(transaction)
        self.progressed()

    def prune(self, lease: Lease, setup: Setup, reason: str) -> None:
        """End a trial that the pruner stopped, or that diverged."""
        with self._transaction() as transaction:
            endings.prune(transaction, lease, setup, reason)
            self._charge(transaction)

    def pause(self, lease: Lease, setup: Setup, checkpoint: str) -> None:
        """Pause a trial at its rung; `checkpoint` is the key of the state that it resumes from."""
        with self._transaction() as transaction:
            endings.pause(transaction, lease, setup, checkpoint)
            self._charge(transaction)

    def fail(self, lease: Lease, reason: str) -> Sequel:
        """Record a failed attempt; return whether the trial is tried again."""
        with self._transaction() as transaction:
            sequel = endings.fail_attempt(transaction, lease, reason)
            self._charge(transaction)
            return sequel

    def interrupt(self, lease: Lease, reason: str) -> Sequel:
        """Release a trial whose trainer was killed from outside."""
        with self._transaction() as transaction:
            sequel = endings.interrupt(transaction, lease, reason)
            self._charge(transaction)
            return sequel

    def give_back(self, lease: Lease, why: str) -> None:
        """Release a trial at once, so that a peer can continue it."""
        with self._transaction() as transaction:
            endings.give_back(transaction, lease, why)
            self._charge(transaction)

    def add_event(self, lease: Lease, kind: str, text: str) -> None:
        """Add a line to the trial's history, once per lease; does nothing if the lease is lost."""
        with self._transaction() as transaction:
            transaction.hold(lease)
            if not transaction.has_event(kind, text, lease.trial_id):
                transaction.add_event(kind, text, lease.trial_id)

    def keep_output(self, lease: Lease, text: str) -> None:
        """Store what an attempt printed; needs no lease, because no result depends on it."""
        with self.database.autocommit() as connection:
            recording.keep_output(connection, lease, self.worker_id, text)

    def observations(self) -> list[FrozenTrial]:
        """Return all trials as a learning sampler sees them."""
        with self._transaction() as transaction:
            return self._observations.read(
                transaction.connection, self.study.study_id, self.study.spec
            )

    def _charge(self, transaction: Transaction) -> None:
        workers.charge(transaction.connection, self.worker_id, self.used())

    def _begin_upload(self, lease: Lease, large: Sequence[Predictions]) -> bool:
        with self._transaction() as transaction:
            return uploads.begin(transaction, lease, large)

    @contextmanager
    def _transaction(self) -> Iterator[Transaction]:
        try:
            with self.database.transaction() as connection, ExitStack() as stack:

                def bind() -> BaseStorage:
                    self.binding.heed(connection, self.study.study_id)
                    return stack.enter_context(self.binding.within(connection))

                yield Transaction(
                    connection,
                    bind,
                    self.study,
                    self.worker_id,
                    self.timing,
                    self.sharing,
                    self._past,
                )
        except BaseException:
            # Rolled back, or committed with the answer lost: the cache may be wrong.
            self._recorder.forget()
            raise
