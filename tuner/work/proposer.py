"""Asks a learning sampler: TPE in this process, GP in a helper process because it needs torch.

The helper gets the trials as JSON over a pipe, and no access to the database.
"""

import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, TrialState, create_trial

from tuner.errors import MachineError
from tuner.processes import Executed, python
from tuner.settings import child_environment
from tuner.spec.study import Spec
from tuner.store import sampling
from tuner.store.ledger.leases import Proposal
from tuner.store.studies import Study
from tuner.work.child import Child
from tuner.work.messages import Message, receive, send

HELPED = frozenset({"gp"})
"""Samplers that need torch, which a supervisor never loads."""


class Proposer:
    """Proposes configurations for one study."""

    def __init__(self, study: Study, worker_id: int, log: Path) -> None:
        self._study = study
        self._worker_id = worker_id
        self._log = log
        """The file for a helper's output."""
        self._helper: Child | None = None
        self._overtaken = False

    def overtaken(self) -> None:
        """Note that a peer has created the configuration that this worker had proposed for.

        What it proposes from now on is for whichever configuration is next, if it may be. It is
        drawn from the worker's own stream: under the seed of the configuration alone, workers
        that propose at once would draw the same values. A worker without peers is never
        overtaken, so its study depends on the study's seed alone.
        """
        self._overtaken = sampling.may_wait(self._study.spec)

    def propose(
        self, trials: Sequence[FrozenTrial], configuration: int, tick: Callable[[], None]
    ) -> Proposal:
        """Return parameters for a configuration; `tick` is called while a helper works."""
        spec, title = self._study.spec, self._study.optuna_name
        if self._overtaken:
            # Nobody else uses this stream, and this worker not twice for one configuration: once
            # its proposal is used, that configuration has a trial.
            mine = self._worker_id
            return Proposal(None, sampling.propose(spec, title, trials, configuration, mine))
        if spec.search.sampler not in HELPED:
            return Proposal(configuration, sampling.propose(spec, title, trials, configuration))
        asked = {
            "spec": spec.to_json(),
            "title": title,
            "trials": [_to_json(trial) for trial in sampling.as_seen(spec, trials)],
            "configuration": configuration,
        }
        helper = self._open()
        helper.send(Message("propose", asked))
        while not helper.gone:
            tick()
            answer = helper.next(0.5)
            if answer is not None:
                chosen = sampling.in_file_order(spec, answer.body["chosen"])
                return Proposal(configuration, chosen)
        printed = helper.printed(self._log_start)[-2000:]
        self.close()
        raise MachineError(f"The helper of the {spec.search.sampler} sampler died.\n{printed}")

    def close(self) -> None:
        """End the helper, if there is one."""
        if self._helper is not None:
            self._helper.kill()
            self._helper = None

    def _open(self) -> Child:
        if self._helper is None:
            start = partial(Executed, python("tuner.work.proposer"), child_environment())
            self._helper = Child(start, self._log)
            self._log_start = self._helper.position()
        return self._helper


def _to_json(trial: FrozenTrial) -> dict[str, Any]:
    return {
        "number": trial.number,
        "state": trial.state.name,
        "value": trial.value,
        "params": trial.params,
        "curve": {str(step): value for step, value in trial.intermediate_values.items()},
    }


def _from_json(spec: Spec, body: dict[str, Any]) -> FrozenTrial:
    distributions = sampling.distributions(spec)
    trial = create_trial(
        state=TrialState[body["state"]],
        value=body["value"],
        params=body["params"],
        distributions={name: distributions[name] for name in body["params"]},
        intermediate_values={int(step): value for step, value in body["curve"].items()},
        user_attrs={"seed": 0},
    )
    trial.number = body["number"]
    return trial


def main(arguments: list[str]) -> int:
    """Answer requests for proposals on a descriptor until the other side closes it."""
    import socket

    channel = socket.socket(fileno=int(arguments[0]))
    channel.set_inheritable(False)
    while (message := receive(channel)) is not None:
        asked = message.body
        spec = Spec.from_json(asked["spec"])
        trials = [_from_json(spec, body) for body in asked["trials"]]
        chosen = sampling.propose(spec, asked["title"], trials, asked["configuration"])
        send(channel, Message("proposed", {"chosen": chosen}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
