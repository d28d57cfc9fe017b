"""`tuner launch --epochs-to N`: trains the same study longer, starting from its stored epochs."""

from collections import Counter
from typing import TYPE_CHECKING

from tuner.cli.options import StudyFile
from tuner.cli.terminal import echo
from tuner.errors import StudyConflictError, UserError
from tuner.spec.parameters import SHARED

if TYPE_CHECKING:
    from tuner.spec.study import Spec
    from tuner.store.database import Database


def lengthened(database: "Database", file: StudyFile, spec: "Spec", epochs: int) -> "Spec":
    """Return the stored study with more epochs, and print which settings continue from theirs.

    `spec` is the file with the changes of this command line.
    """
    from tuner.spec.identity import compare
    from tuner.spec.study_ref import StudyRef
    from tuner.store import studies

    with database.transaction() as connection:
        stored = studies.find(connection, StudyRef(spec.name))
    if stored.spec.overrides:
        # Changes by --set at the study's launch are not in the file.
        spec = file.read((*stored.spec.overrides, *spec.overrides))
    difference = compare(stored.spec, spec)
    if not (difference.same or difference.extends):
        changes = "\n".join(f"  {change}" for change in difference.changes)
        raise StudyConflictError(
            f"The study file of {stored.title} has changed since its launch:\n{changes}\n"
            "Only the epochs may differ for --epochs-to; undo the change, or launch it with "
            "--new-version."
        )
    _check(spec, stored.title, epochs)
    if int(spec.job({}, 0).parameters["epochs"]) == epochs:
        return spec  # launched before, and perhaps interrupted: it is resumed
    longer = spec.with_epochs(epochs)
    _tell(spec, longer)
    return longer


def _check(before: "Spec", title: str, epochs: int) -> None:
    if "epochs" in before.varied:
        raise UserError(
            f"{title} varies its epochs, so --epochs-to does not apply; "
            "add the larger values to [space] epochs and launch with --new-version."
        )
    now = int(before.fixed.get("epochs", before.defaults.get("epochs", 0)))
    fault = SHARED["epochs"].fault(epochs)
    if fault:
        raise UserError(f"--epochs-to {epochs}: {fault}.")
    if epochs < now:
        raise UserError(f"{title} already trains {now} epochs; --epochs-to must be larger.")


def _tell(before: "Spec", after: "Spec") -> None:
    """Print how many settings start from stored epochs, and why the others do not."""
    from tuner.spec.search import SAMPLERS
    from tuner.store.sampling import choose
    from tuner.train.checkpoints.keys import shared_epochs_of_jobs

    if SAMPLERS[before.search.sampler].learns:
        echo(
            f"The {before.search.sampler} sampler makes new proposals for the longer study; a "
            "setting that it proposes again continues from its stored epochs if the schedule "
            "allows it."
        )
        return
    echo("Continuing from stored epochs:")
    done = int(before.job({}, 0).parameters["epochs"])
    counts: Counter[tuple[str, int]] = Counter()
    for configuration in range(before.configurations):
        chosen = choose(before, configuration)
        old, new = before.job(chosen, 0), after.job(chosen, 0)
        counts[str(new.parameters["scheduler"]), shared_epochs_of_jobs(old, new)] += 1
    for (scheduler, shared), count in sorted(counts.items()):
        settings = "1 setting" if count == 1 else f"{count} settings"
        where = "from the beginning" if shared == 0 else f"from epoch {shared} of {done}"
        why = "" if shared == done else "; the schedule depends on the total number of epochs"
        echo(f"  {scheduler} schedule: {settings} {where}{why}")
