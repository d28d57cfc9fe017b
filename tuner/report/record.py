"""How a study was produced, for a report: lost trials, cost, provenance, reproduction."""

from collections.abc import Iterator

from tuner.answers import words
from tuner.answers.gap import gap
from tuner.answers.table import Table
from tuner.report.document import Block, CodeBlock, Words
from tuner.results import DataSet, Results, origin, reuse
from tuner.results import endings as endings_of
from tuner.spec import identity
from tuner.spec.writing import as_toml
from tuner.text import masked

ENDINGS_MOST = 15
NUMBERS_MOST = 8
CLASSES_MOST = 6


def glance(results: Results) -> tuple[tuple[str, str], ...]:
    """Return the key figures."""
    rows = results.rows
    states = [row["state"] for row in rows]
    complete = states.count("COMPLETE")
    found = [("trials complete", f"{complete:,} of {results.spec.total_trials:,}")]
    names = (*["paused"] * results.spec.pauses, "pruned", "diverged", "failed")
    lost = {name: states.count(name.upper()) for name in names}
    if any(lost.values()):
        found.append((", ".join(lost), ", ".join(f"{count:,}" for count in lost.values())))
    if complete and results.tested:
        measured = gap(results)
        found += [
            ("mean validation accuracy", words.percent(measured.val_acc.value)),
            ("mean test accuracy", words.percent(measured.test_acc.value)),
            ("mean gap", f"{words.signed(measured.gap.value * 100, 1)} points"),
        ]
    found.append(("training", span(sum(row["seconds"] for row in rows))))
    return tuple(found)


def span(seconds: float) -> str:
    """Format a duration for people."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def endings(results: Results) -> Iterator[Block]:
    """Say which trials did not run to their end, and why."""
    endings = endings_of(results)
    unfinished = sum(not row.ended for row in results.rows)
    if unfinished:
        yield Words(f"{words.count(unfinished, 'trial')} running or waiting for a worker.")
    if not endings:
        yield Words(f"No trial was {words.lost(results.spec)}.")
        return
    shown = endings[:ENDINGS_MOST]
    more = (
        ""
        if len(shown) == len(endings)
        else f"; {len(endings) - len(shown)} less frequent reasons not shown"
    )
    yield Table(
        ("state", "why", "trials", "epochs trained", "which"),
        tuple(
            (
                ending.state.lower(),
                ending.reason or "–",
                f"{len(ending.trials):,}",
                " to ".join(str(number) for number in dict.fromkeys(ending.epochs)),
                _numbers(ending.trials),
            )
            for ending in shown
        ),
        f"Trials that did not complete{more}",
    )
    yield Words(
        f"{words.lost(results.spec, 'and').capitalize()} trials are left out of all means, and so "
        "are paired trials whose partner is missing; these are counted. They are not a random "
        "subset of the trials."
    )


def _numbers(trials: tuple[int, ...]) -> str:
    shown = ", ".join(str(trial) for trial in trials[:NUMBERS_MOST])
    return f"{shown}, …" if len(trials) > NUMBERS_MOST else shown


def cost(results: Results) -> Iterator[Block]:
    """Say what the study cost, and what reusing epochs saved."""
    found = reuse(results)
    source = origin(results)
    trained = found.epochs - found.reused
    rows = [
        ("epochs trained", f"{trained:,}"),
        ("epochs reused from other trials", f"{found.reused:,}"),
        ("training time", span(found.seconds)),
        ("training time without reuse", span(found.seconds_without)),
        ("worker time", span(source.worker_hours * 3600)),
        ("workers, machines", f"{source.workers:,}, {source.hosts:,}"),
    ]
    if found.excess:
        rows.append(("epochs trained redundantly", f"{found.excess:,}"))
    yield Table(("what", "how much"), tuple(rows))


def provenance(results: Results) -> Iterator[Block]:
    """Say where the results come from: code, versions, machine, data."""
    study = results.study
    source = origin(results)
    kept = study.provenance
    packages = ", ".join(f"{name} {one}" for name, one in dict(kept.get("packages") or {}).items())
    rows = [
        ("study", f"{study.full_name}, fingerprint {identity.fingerprint(study.spec)[:16]}"),
        ("launched", f"{study.created:%Y-%m-%d %H:%M} UTC on {kept.get('host', '?')}"),
        ("code", _code(kept)),
        ("packages", f"python {kept.get('python', '?')}, {packages}"),
        ("system", str(kept.get("platform", "?"))),
    ]
    rows += [
        ("device", f"{setup.device} ({words.count(setup.trials, 'trial')})")
        for setup in source.setups
    ]
    rows += [("data", _data(dataset)) for dataset in source.data]
    yield Table(("item", "value"), tuple(rows))
    notes = source.setups[0].notes if source.setups else {}
    if notes:
        yield Table(("how it was computed", ""), tuple(sorted(notes.items())))


def _data(dataset: DataSet) -> str:
    sizes = ", ".join(f"{count:,} {split}" for split, count in dataset.sizes.items())
    many = len(dataset.classes)
    classes = words.listed(dataset.classes) if many <= CLASSES_MOST else f"{many} classes"
    trials = words.count(dataset.trials, "trial")
    return f"{dataset.fingerprint[:16]}: {sizes} images of {classes} ({trials})"


def _code(kept: object) -> str:
    found = dict(kept) if isinstance(kept, dict) else {}
    git = found.get("git")
    version = f"tuner {found.get('tuner', '?')}"
    if not git:
        return f"{version}, not launched from a git checkout"
    changed = ", with changes that were not committed" if git.get("dirty") else ""
    return f"{version}, commit {git.get('commit')}{changed}"


def study_file(results: Results) -> Iterator[Block]:
    """Give the study as a file, including the changes of the command line."""
    spec = results.spec
    if spec.overrides:
        said = " ".join(f"--set {text}" for text in spec.overrides)
        yield Words(f"Launched with {masked(said)}; the file below includes that.")
    # The address of checkpoints may contain credentials.
    yield CodeBlock(masked(as_toml(spec)), "toml")


def reproduce(results: Results) -> Iterator[Block]:
    """Give the commands that reproduce the study, and say what will be equal."""
    study = results.study
    git = dict(study.provenance).get("git")
    yield Words("Restore the study file above and its objective, unchanged; then run:")
    commands = [f"git checkout {git['commit']}"] if git else []
    commands += [
        f"tuner launch studies/{study.name}.toml",
        f"tuner report {study.name} -o again.html",
    ]
    yield CodeBlock("\n".join(commands), "sh")
    yield Words(
        "The same versions on the same kind of processor with the same number of threads "
        "reproduce every epoch bit for bit; on other machines, results differ by rounding errors "
        "that training amplifies: verdicts should agree, but individual values may differ "
        "slightly. The data fingerprint is a hash of the data's content."
    )


def reading_aid(results: Results) -> Iterator[Block]:
    """Explain intervals, verdicts and losses."""
    search = results.spec.search
    chosen = "The setting and the epoch were" if search.at == "best" else "The setting was"
    judged = "" if search.at == "best" else " Each trial is judged at its last epoch."
    test = ""
    if results.tested:
        test = (
            " Test accuracy was measured once per trial, on completion, and was not used for "
            "selection. The gap is validation minus test accuracy."
        )
    yield Words(
        "Intervals are 95% intervals. For settings, they generalise to other seeds and to other "
        "images like these (or patients, if known). Verdicts are corrected for multiple "
        "comparisons and for having picked the best; “not distinguishable” means that this study "
        "cannot tell, not that there is no difference."
    )
    yield Words(
        "Losses are mean negative log-likelihoods of the true class in nats, regardless of the "
        f"training loss. {chosen} selected by {search.metric} on validation images.{judged}{test}"
    )
