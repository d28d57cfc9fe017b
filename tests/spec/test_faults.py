"""Every malformed study file is reported with the key, what was expected, and the nearest name."""

from pathlib import Path

import pytest

from tests.spec.conftest import GRID, RATES, STUDY, TPE, Read, declared
from tuner.errors import StudyFileError
from tuner.spec.load import load

REST = GRID + RATES
FIRST_TRIALS = "[budget]\ntrials = {}\n[replicates]\nseeds = {}\n" + RATES


def space(line: str, head: str = STUDY + GRID) -> str:
    """Return a study whose space is one line."""
    return f"{head}[space]\n{line}\n"


def study(**keys: str) -> str:
    """Return a study whose [study] has these additional keys."""
    usual = {"name": '"small"', "question": '"Which?"', "objective": '"chest_xray"'}
    lines = [f"{key} = {value}" for key, value in {**usual, **keys}.items() if value]
    return "[study]\n" + "\n".join(lines) + "\n" + REST


def searched(lines: str, trials: str = "20") -> str:
    """Return a study whose [search] has these lines."""
    return f"{STUDY}[budget]\ntrials = {trials}\n[search]\n{lines}\n{RATES}"


def pruner(name: str, *lines: str) -> str:
    """Return a study with a pruner and its options."""
    options = "\n".join(["[search.pruner_options]", *lines])
    return searched(f'sampler = "tpe"\npruner = "{name}"\n{options}')


MALFORMED = {
    "no equals sign": (STUDY + "oops\n" + REST, ["not valid TOML", "line 6, column"]),
    "name twice": (space("lr = [1e-3]\nlr = [1e-2]"), ["not valid TOML", "line 10"]),
    "section twice": (STUDY + REST + "[study]\n", ["not valid TOML", "line 10"]),
    "no study": (REST, ["study: this section is missing", "name, question, objective"]),
    "no budget": (STUDY + RATES, ["budget: this section is missing; it needs trials"]),
    "no name": (study(name=""), ["study.name: missing"]),
    "no question": (study(question=""), ["study.question: missing; expected the question"]),
    "no objective": (study(objective=""), ["study.objective: missing"]),
    "empty question": (study(question='" "'), ["study.question: expected the question"]),
    "versioned name": (study(name='"small@2"'), ["study.name", "no @", "'small@2'"]),
    "capital name": (study(name='"Small"'), ["study.name: expected a lower-case letter"]),
    "long name": (study(name=f'"{"a" * 64}"'), ["study.name: expected", "at most 63"]),
    "number as name": (study(name="3"), ["study.name: expected a lower-case letter", "got 3"]),
    "strange objective": (study(objective='"../x"'), ["study.objective: expected the name"]),
    "unknown objective": (study(objective='"digits"'), ["study.objective: There is no objective"]),
    "unknown section": (STUDY + REST + "[serach]\n", ["serach: unknown section", "search?"]),
    "loose key": ("trials = 3\n" + STUDY + REST, ["trials: unknown section"]),
    "section as value": ("budget = 3\n" + STUDY + RATES, ["budget: expected a table, got 3"]),
    "space as list": ("space = [1]\n" + STUDY + GRID, ["space: expected a table, got [1]"]),
    "fixed as value": ("fixed = true\n" + STUDY + REST, ["fixed: expected a table, got true"]),
    "search as tables": (STUDY + REST + "[[search]]\n", ["search: expected a table"]),
    "key of study": (study(author='"me"'), ["study.author: unknown key", "name, question"]),
    "key of budget": (
        STUDY + "[budget]\ntrails = 3\n" + RATES,
        ["budget.trails: unknown key 'trails'; did you mean trials?", "budget.trials: missing"],
    ),
    "key of limits": (STUDY + REST + "[limits]\nmemroy = 1\n", ["limits.memroy", "memory?"]),
    "key of search": (searched("samplers = 1"), ["search.samplers: unknown", "sampler?"]),
    "key of replicates": (STUDY + REST + "[replicates]\nseed = 3\n", ["seeds?"]),
    "zero trials": (STUDY + "[budget]\ntrials = 0\n" + RATES, ['"grid" or a whole number']),
    "half a trial": (STUDY + "[budget]\ntrials = 2.5\n" + RATES, ["budget.trials", "got 2.5"]),
    "true trials": (STUDY + "[budget]\ntrials = true\n" + RATES, ["got true"]),
    "trials as a word": (STUDY + '[budget]\ntrials = "all"\n' + RATES, ["got 'all'"]),
    "no hours": (STUDY + GRID + "hours = 0\n" + RATES, ["budget.hours: expected a number of"]),
    "both names of hours": (
        STUDY + GRID + "hours = 2\ngpu_hours = 3\n" + RATES,
        ["budget.gpu_hours: means the same as hours; leave one out"],
    ),
    "no gpu_hours": (STUDY + GRID + "gpu_hours = 0\n" + RATES, ["budget.gpu_hours: expected a"]),
    "money without a price": (
        STUDY + GRID + "money = 100\n" + RATES,
        ["budget.money: needs price_per_hour"],
    ),
    "no epochs": (
        STUDY + GRID + "epochs = 0\n" + RATES,
        ["budget.epochs: expected a whole number"],
    ),
    "no full training": (
        STUDY + GRID + "full = 0\n" + RATES,
        ["budget.full: expected a number of"],
    ),
    "endless hours": (STUDY + GRID + "hours = inf\n" + RATES, ["budget.hours", "got inf"]),
    "no duration": (STUDY + REST + '[limits]\nsilence = "10"\n', ["limits.silence", '"10m"']),
    "bare duration": (STUDY + REST + "[limits]\nsilence = 10\n", ["limits.silence", "got 10"]),
    "duration and more": (
        STUDY + REST + '[limits]\nsilence = "10m\\n"\n',
        ["limits.silence: expected a duration", r"got '10m\n'"],
    ),
    "no silence": (STUDY + REST + '[limits]\nsilence = "0s"\n', ["limits.silence"]),
    "size without unit": (STUDY + REST + '[limits]\nmemory = "8"\n', ["limits.memory", "8GB"]),
    "size in potatoes": (STUDY + REST + '[limits]\nmemory = "8 GB"\n', ["limits.memory"]),
    "no threads": (STUDY + REST + "[limits]\nthreads = 0\n", ["limits.threads", "1 to 1,024"]),
    "no attempts": (STUDY + REST + "[limits]\nattempts = 0\n", ["limits.attempts"]),
    "unknown sampler": (
        searched('sampler = "tpee"'),
        ["search.sampler: expected one of grid, random, tpe, qmc, gp, got 'tpee'", "mean tpe?"],
    ),
    "unknown pruner": (searched('pruner = "meadian"'), ["search.pruner", "mean median?"]),
    "unknown metric": (searched('metric = "test_acc"'), ["search.metric: expected one of val"]),
    "unknown moment": (searched('at = "first"'), ['search.at: expected "best" or "last"']),
    "negative seed": (searched("seed = -1"), ["search.seed: expected a whole number from 0"]),
    "options as value": (searched("sampler_options = 3"), ["sampler_options: expected a table"]),
    "option of another sampler": (
        searched('sampler = "random"\nsampler_options = { n_startup_trials = 5 }'),
        ["search.sampler_options.n_startup_trials: unknown option of random", "nothing can"],
    ),
    "misspelt option": (
        searched('sampler = "tpe"\nsampler_options = { n_startup_trails = 5 }'),
        ["did you mean n_startup_trials?"],
    ),
    "wrong option": (
        searched('sampler = "tpe"\nsampler_options = { n_ei_candidates = 0 }'),
        ["search.sampler_options.n_ei_candidates: expected a whole number of at least 1", "got 0"],
    ),
    "group alone": (
        searched('sampler = "tpe"\nsampler_options = { group = true, multivariate = false }'),
        ["search.sampler_options: group = true needs multivariate"],
    ),
    "asha without resource": (
        pruner("asha"),
        ["search.pruner_options.min_resource: missing; asha needs it"],
    ),
    "hyperband without end": (
        pruner("hyperband", "min_resource = 2"),
        ["search.pruner_options.max_resource: missing; hyperband"],
    ),
    "hyperband upside down": (
        pruner("hyperband", "min_resource = 9", "max_resource = 3"),
        ["max_resource must be at least min_resource"],
    ),
    "patient without patience": (pruner("patient"), ["pruner_options.patience: missing"]),
    "threshold without bound": (pruner("threshold"), ["needs lower, upper, or both"]),
    "threshold upside down": (
        pruner("threshold", "lower = 2.0", "upper = 1.0"),
        ["lower (2) must be below upper (1)"],
    ),
    "threshold without room": (
        pruner("threshold", "lower = 1.0", "upper = 1"),
        ["lower (1) must be below upper (1)"],
    ),
    "promotion beside a pruner that compares": (
        searched('sampler = "random"\npruner = "median"\nallocator = "promote"'),
        ["search.pruner: median stops trials", "choose one of none, patient, threshold"],
    ),
    "promotion of single seeds": (
        searched('sampler = "random"\nallocator = "promote"') + "[replicates]\nseeds = 2\n",
        ['replicates.of: allocator = "promote"', 'write of = "top"'],
    ),
    "fewer complete trials than contenders": (
        searched('sampler = "random"\nallocator = "promote"\nallocator_options = { finish = 2 }')
        + '[replicates]\nseeds = 2\nof = "top"\ntop = 4\n',
        ["allocator_options.finish: the race needs 4 complete trials (top), got 2"],
    ),
    "half an epoch": (
        searched('sampler = "random"\nallocator = "promote"\nallocator_options = { first = 1.5 }'),
        ["search.allocator_options: first must be below 1 or a whole number of epochs, got 1.5"],
    ),
    "NaN threshold": (pruner("threshold", "upper = nan"), ["pruner_options.upper", "got nan"]),
    "unknown parameter": (space("lrr = [1.0]"), ["space.lrr: unknown parameter 'lrr'", "mean lr?"]),
    "unknown fixed": (STUDY + REST + "[fixed]\ndepht = 2\n", ["fixed.depht", "mean depth?"]),
    "a key in fixed": (STUDY + REST + "[fixed]\nseeds = 2\n", ["did you mean replicates.seeds?"]),
    "data key in fixed": (
        STUDY + REST + "[fixed]\nimage_size = 64\n",
        ["fixed.image_size: unknown in [fixed]; did you mean data.image_size?"],
    ),
    "dotted data key in fixed": (
        STUDY + REST + '[fixed]\n"data.shift" = 1\n',
        ['fixed."data.shift": unknown in [fixed]; did you mean data.shift?'],
    ),
    "parameter in data": (
        STUDY + REST + "[data]\ndepth = 3\n",
        ["data.depth: unknown in [data]; did you mean fixed.depth?"],
    ),
    "condition on a data key that is held": (
        space('lr = { values = [1], when = { "data.shift" = 1 } }') + "[data]\nshift = 1\n",
        ['space.lr.when."data.shift": data.shift is fixed'],
    ),
    "condition on 1 for true": (
        space("batch_norm = [true, false]\nlr = { values = [1], when = { batch_norm = 1 } }"),
        ["space.lr.when.batch_norm: batch_norm never takes 1"],
    ),
    "unknown data key": (STUDY + REST + "[data]\nsize = 2\n", ["data.size: unknown data key"]),
    "unknown source": (
        STUDY + REST + '[data]\nsource = "ct"\n',
        ["data.source: expected one of phantom, npy, got 'ct'"],
    ),
    "data key without prefix": (space("shift = [0.0, 1.0]"), ['write "data.shift" in quotes']),
    "data key without quotes": (
        space("data.shift = [0.0, 1.0]"),
        ['space.data: to vary a data key, write "data.shift" in quotes'],
    ),
    "unknown varied data key": (space('"data.shfit" = [0.0]'), ["mean data.shift?"]),
    "space and fixed": (STUDY + REST + "[fixed]\nlr = 0.1\n", ["fixed.lr: lr is in [space] too"]),
    "space and data": (
        space('"data.shift" = [0.0]') + "[data]\nshift = 1.0\n",
        ["data.shift: data.shift is in [space] too"],
    ),
    "one value in space": (space("lr = 0.1"), ["space.lr: expected a list", "in [fixed]"]),
    "empty choice": (space("lr = []"), ["space.lr: an empty choice; list at least one value"]),
    "empty choice in a table": (space("lr = { values = [] }"), ["space.lr: an empty choice"]),
    "value twice": (space("lr = [1, 0.1, 1.0]"), ["space.lr: 1.0 is listed twice"]),
    "wrong type": (space('depth = [1, "2"]'), ["space.depth: expected a whole number", "got '2'"]),
    "bool as number": (space("depth = [true]"), ["space.depth: expected a whole", "got True"]),
    "float as int": (space("depth = [2.0]"), ["space.depth: expected a whole number", "2.0"]),
    "number as bool": (space("batch_norm = [true, 0]"), ["expected true or false, got 0"]),
    "out of range": (space("dropout = [0.5, 1.5]"), ["space.dropout", "from 0 to 0.99, got 1.5"]),
    "unknown choice": (space('loss = ["mse"]'), ["space.loss: expected one of bce, ce"]),
    "NaN in a choice": (space("lr = [1e-3, nan]"), ["space.lr: expected a number", "got nan"]),
    "infinity in a choice": (space("lr = [-inf]"), ["space.lr: expected", "got -inf"]),
    "list in a choice": (space("lr = [[1e-3]]"), ["space.lr: expected a value, got [0.001]"]),
    "table in a choice": (space("lr = [{ a = 1 }]"), ["space.lr: expected a value, got a table"]),
    "date in a choice": (space("lr = [2026-01-01]"), ["the date or time 2026-01-01 (quote it"]),
    "table without ends": (space("lr = { when = {} }"), ["space.lr: expected a list of values"]),
    "no upper end": (space("lr = { low = 1e-3, step = 1 }"), ["space.lr.high: missing"]),
    "misspelt end": (space("lr = { low = 1e-3, hihg = 1 }"), ["space.lr.hihg", "mean high?"]),
    "text as end": (space('lr = { low = "a", high = 1 }'), ["space.lr.low: expected a number"]),
    "infinite end": (space("lr = { low = 1e-3, high = inf }"), ["space.lr.high", "got inf"]),
    "NaN end": (space("lr = { low = nan, high = 1 }"), ["space.lr.low: expected", "got nan"]),
    "end out of range": (
        space("dropout = { low = 0, high = 2, step = 1 }"),
        ["space.dropout.high: expected a number from 0 to 0.99, got 2"],
    ),
    "low above high": (space("lr = { low = 1, high = 0.1 }"), ["low (1) must be below high"]),
    "low is high": (space("depth = { low = 2, high = 2 }"), ["low (2) must be below high (2)"]),
    "log of zero": (
        space("weight_decay = { low = 0, high = 1, log = true }"),
        ["space.weight_decay.low: a log range needs low above 0, got 0"],
    ),
    "log with step": (
        space("lr = { low = 1e-4, high = 1e-1, log = true, step = 1e-2 }"),
        ["space.lr.step: a log range has no step"],
    ),
    "log as a word": (space('lr = { low = 1, high = 2, log = "yes" }'), ["true or false"]),
    "no step": (
        space("depth = { low = 1, high = 3, step = 0 }"),
        ["space.depth.step: expected a number above 0"],
    ),
    "step too long": (
        space("depth = { low = 1, high = 3, step = 5 }"),
        ["space.depth.step: 5 is larger than the range (1 to 3)"],
    ),
    "step that misses": (
        space("step_size = { low = 10, high = 25, step = 10 }"),
        ["space.step_size.step: does not reach high (25): the last value is 20"],
    ),
    "step that misses, in tenths": (
        space("dropout = { low = 0.1, high = 0.6, step = 0.2 }"),
        ["space.dropout.step: does not reach high (0.6): the last value is 0.5"],
    ),
    "tiny step": (space("lr = { low = 1, high = 2, step = 1e-300 }"), ["at most 100,000"]),
    "range of a choice": (
        space("loss = { low = 0, high = 1 }"),
        ["space.loss: loss has no range, it is one of bce, ce, focal; list the values"],
    ),
    "range of a bool": (space("batch_norm = { low = 0, high = 1 }"), ["has no range"]),
    "fraction of a block": (
        space("depth = { low = 1.5, high = 3 }"),
        ["space.depth.low: expected a whole number from 1 to 50, got 1.5"],
    ),
    "fraction as step": (
        space("depth = { low = 1, high = 3, step = 0.5 }"),
        ["space.depth.step: expected a whole number, got 0.5"],
    ),
    "condition on nothing": (
        space('step_size = { values = [5], when = { schedular = "step" } }\nscheduler = ["step"]'),
        ["space.step_size.when.schedular: schedular is not in [space]; did you mean scheduler?"],
    ),
    "condition on a fixed one": (
        space('step_size = { values = [5], when = { scheduler = "step" } }')
        + '[fixed]\nscheduler = "step"\n',
        ["space.step_size.when.scheduler: scheduler is fixed"],
    ),
    "condition on itself": (
        space("depth = { values = [1, 2], when = { depth = 1 } }"),
        ["space.depth.when.depth: a dimension cannot be a condition of itself"],
    ),
    "impossible condition": (
        space(
            'scheduler = ["step", "cosine"]\nlr = { values = [1], when = { scheduler = "stepp" } }'
        ),
        ["space.lr.when.scheduler: scheduler never takes 'stepp'; did you mean step?"],
    ),
    "condition on a range": (
        space("lr = { low = 1, high = 2 }\ndepth = { values = [1], when = { lr = 1 } }"),
        ["space.depth.when.lr: lr is a range without a step"],
    ),
    "circle": (
        space("depth = { values = [1], when = { width = 2 } }\n")
        + "width = { values = [2], when = { depth = 1 } }\n",
        ["space.depth.when: conditions in a circle: depth, width"],
    ),
    "conditions never true together": (
        space(
            'scheduler = ["step", "cosine"]\ndepth = { values = [1, 2], '
            'when = { scheduler = "step" } }\n'
            'width = { values = [1], when = { depth = 1, scheduler = "cosine" } }'
        ),
        ["space.width.when: the conditions are never true together"],
    ),
    "condition as value": (space("lr = { values = [1], when = 3 }"), ["space.lr.when: expected a"]),
    "empty condition": (space("lr = { values = [1], when = { depth = [] } }"), ["space.lr.when"]),
    "grid over a range": (
        space("lr = { low = 1e-4, high = 1e-1, log = true }"),
        ["space.lr: a grid over a range needs a step, or list the values"],
    ),
    "grid of millions": (
        space(
            "depth = { low = 1, high = 50, step = 1 }\nwidth = { low = 1, high = 65536, step = 1 }"
        ),
        ["space: the grid has more than 100,000 combinations"],
    ),
    "more than the grid has": (
        STUDY + FIRST_TRIALS.format(9, 3),
        ['budget.trials: 9 trials are more than the grid has (6); write "grid"'],
    ),
    "budget the seeds do not divide": (
        STUDY + "[replicates]\nseeds = 3\n" + TPE + RATES,
        ["budget.trials: 20 trials cannot be divided evenly among 3 seeds; write 18 or 21"],
    ),
    "fewer trials than seeds": (
        STUDY + "[replicates]\nseeds = 30\n" + TPE + RATES,
        ["cannot be divided evenly among 30 seeds; write 30 or more"],
    ),
    "grid budget of a sampler": (
        searched('sampler = "tpe"', '"grid"'),
        ['budget.trials: "grid" needs sampler = "grid", not \'tpe\'; write a number'],
    ),
    "nothing to choose": (STUDY + TPE, ["space: nothing varies, so tpe has nothing to choose"]),
    "top without number": (
        STUDY + TPE + RATES + '[replicates]\nof = "top"\nseeds = 2\n',
        ["replicates.top: missing"],
    ),
    "top without seeds": (
        STUDY + TPE + RATES + '[replicates]\nof = "top"\ntop = 2\n',
        ['replicates.seeds: of = "top" needs 2 or more, got 1'],
    ),
    "top of all": (STUDY + REST + "[replicates]\nseeds = 2\ntop = 2\n", ['only with of = "top"']),
    "top of too few": (
        STUDY + TPE + RATES + '[replicates]\nof = "top"\ntop = 7\nseeds = 3\n',
        ["replicates.top: 7 is more than there is to choose from: only 6 are explored"],
    ),
    "top that leaves none": (
        STUDY + TPE + RATES + '[replicates]\nof = "top"\ntop = 9\nseeds = 5\n',
        ["none would be explored"],
    ),
    "list in fixed": (
        STUDY + REST + "[fixed]\ndepth = [1, 2]\n",
        ["fixed.depth: expected one value, got [1, 2]; to vary it, write depth in [space]"],
    ),
    "table in data": (
        STUDY + REST + "[data.shift]\nlow = 0\n",
        ['data.shift: expected one value, got a table; to vary it, write "data.shift" in'],
    ),
    "date in fixed": (STUDY + GRID + "[fixed]\nlr = 2026-01-01\n", ["fixed.lr", "the date"]),
    "NaN in fixed": (STUDY + GRID + "[fixed]\nlr = nan\n", ["fixed.lr: expected", "got nan"]),
    "beyond 64 bits": (
        STUDY + REST + f"[fixed]\nwidth = {10**30}\n",
        ["fixed.width: expected a whole number", "a number beyond 64 bits"],
    ),
    "NUL in a text": (STUDY + REST + '[data]\npath = "a\\u0000b"\n', ["NUL character"]),
    "a deep table": (STUDY + REST + f"[data]\n{'a.' * 900}b = 1\n", ["data.a: unknown data key"]),
    "a very deep list": (STUDY + REST + f"[data]\npath = {'[' * 4000}\n", ["nested too deeply"]),
}

TWOFOLD = ("key of budget", "misspelt end", "condition on a range")
"""A misspelt required key is unknown and missing; a range without step fits no grid either."""


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_file_is_told_with_what_to_do(case: str, read: Read) -> None:
    """Each fault names its key, what was expected and what there was."""
    text, fragments = MALFORMED[case]
    with pytest.raises(StudyFileError) as raised:
        read(text)
    message = str(raised.value)
    assert [fragment for fragment in fragments if fragment not in message] == [], message


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_file_has_no_other_fault_than_its_own(case: str, read: Read) -> None:
    """One mistake gives one fault, without any follow-up."""
    with pytest.raises(StudyFileError) as raised:
        read(MALFORMED[case][0])
    assert len(raised.value.faults) == (2 if case in TWOFOLD else 1), str(raised.value)


def test_all_faults_are_told_at_once_in_the_order_of_the_file(read: Read) -> None:
    """All faults are reported together, in the order of the file."""
    text = (
        "[fixed]\ndepth = 0\n[budget]\ntrials = 7\n[replicates]\nseeds = 2\n"
        "[space]\nlr = [nan]\ndepht = [1]\ndropout = { low = 0, high = 0.5 }\n"
        '[serach]\n[study]\nname = "A"\nobjective = "chest_xray"\n[data]\nsource = "x"\n'
    )
    with pytest.raises(StudyFileError) as raised:
        read(text)
    assert [fault.key for fault in raised.value.faults] == [
        "fixed.depth",
        "budget.trials",
        "space.lr",
        "space.depht",
        "space.dropout",
        "serach",
        "study.question",
        "study.name",
        "data.source",
    ]


def test_a_faulty_parent_is_not_a_second_fault(read: Read) -> None:
    """Dependents of a faulty dimension are not reported until it is fixed."""
    lines = 'scheduler = ["stepp"]\nstep_size = { values = [5], when = { scheduler = "step" } }'
    with pytest.raises(StudyFileError) as raised:
        read(space(lines))
    assert [fault.key for fault in raised.value.faults] == ["space.scheduler"]


def test_a_grid_with_a_faulty_dimension_is_not_counted(read: Read) -> None:
    """A budget is not compared with a grid that lacks a faulty dimension."""
    text = STUDY + "[budget]\ntrials = 4\n[space]\nlr = [1, 2]\ndepth = [1, 0]\n"
    with pytest.raises(StudyFileError) as raised:
        read(text)
    assert [fault.key for fault in raised.value.faults] == ["space.depth"]


def test_an_unknown_objective_does_not_hide_other_faults(read: Read) -> None:
    """The form is checked even if the allowed names are unknown."""
    head = STUDY.replace("chest_xray", "digits") + GRID
    text = space("x = { low = 2, high = 1 }\ny = [{}]\nz = { low = 1, high = 2, step = 1 }", head)
    with pytest.raises(StudyFileError) as raised:
        read(text + "[fixed]\nw = 2026-01-01\nv = 1\n")
    keys = ["study.objective", "space.x", "space.y", "fixed.w"]
    assert [fault.key for fault in raised.value.faults] == keys


def test_shared_parameters_are_checked_without_an_objective(read: Read) -> None:
    """Shared parameters are checked; an objective's own are listed as unchecked."""
    for objective in ('"digits"', '"../x"', "7"):
        head = STUDY.replace('"chest_xray"', objective) + GRID
        text = space('scheduler = ["steep"]\ndepth = [0, 1]', head)
        with pytest.raises(StudyFileError) as raised:
            read(text + '[fixed]\nepochs = 0\nlss = "bce"\n[data]\nsource = "x"\n')
        faults = {fault.key: fault.message for fault in raised.value.faults}
        assert list(faults) == ["study.objective", "space.scheduler", "fixed.epochs"]
        assert faults["study.objective"].endswith(
            "these were not checked: space.depth, fixed.lss, data.source"
        )


def test_a_slip_is_asked_about_without_an_objective(read: Read) -> None:
    """A name close to a shared one is asked about, since the objective may declare it."""
    head = STUDY.replace('"chest_xray"', '"digits"') + GRID
    text = space('schedular = ["step", "cosine"]\ndepth = [0, 1]', head)
    with pytest.raises(StudyFileError) as raised:
        read(text + "[fixed]\nepoch = 3\n")
    (fault,) = raised.value.faults
    assert (
        "Did you mean scheduler for space.schedular, epochs for fixed.epoch, "
        "unless your objective declares it?"
    ) in fault.message
    assert fault.message.endswith("not checked: space.schedular, space.depth, fixed.epoch")


def test_the_count_and_the_file_are_named(read: Read, tmp_path: Path) -> None:
    """The first line names the file, the number of faults, and that nothing was created."""
    with pytest.raises(StudyFileError, match=r"small\.toml has 1 error; nothing was created"):
        read(space("lrr = [1]"))


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    """A missing file is the user's error, not a crash."""
    with pytest.raises(StudyFileError, match=r"cannot be read: No such file"):
        load(tmp_path / "none.toml", (), declared)


@pytest.mark.parametrize(
    ("number", "told"),
    [
        ("9" * 5000, "line 1: trials: a number of 5,000 digits, beyond 64 bits"),
        ("0x" + "f" * 5000, "budget.trials: .*a number beyond 64 bits"),
        ("9" * 4000, "budget.trials: .*a number beyond 64 bits"),
        ("1e" + "9" * 5000, "budget.trials: .*inf"),
    ],
    ids=["5,000 digits", "hexadecimal", "4,000 digits", "exponent"],
)
def test_a_number_of_any_length_is_a_fault(tmp_path: Path, number: str, told: str) -> None:
    """A number of any length is reported as a fault, in the file and on the command line."""
    path = tmp_path / "long.toml"
    path.write_text(f"budget.trials = {number}\n" + STUDY + "[space]\nlr = [1e-3, 1e-2]\n")
    with pytest.raises(StudyFileError, match=told.replace("trials: a", "budget.trials: a")):
        load(path, (), declared)
    path.write_text(STUDY + REST)
    with pytest.raises(StudyFileError, match=r"budget\.trials"):
        load(path, (f"budget.trials={number}",), declared)


def test_a_file_that_is_not_text_is_told(tmp_path: Path) -> None:
    """Bytes that are not UTF-8 are reported with their place."""
    (tmp_path / "bytes.toml").write_bytes(b"[study]\xff")
    with pytest.raises(StudyFileError, match=r"not UTF-8 text \(byte 7\)"):
        load(tmp_path / "bytes.toml", (), declared)


def test_a_byte_order_mark_is_no_fault(tmp_path: Path) -> None:
    """Files with a UTF-8 byte order mark are read."""
    (tmp_path / "marked.toml").write_bytes(b"\xef\xbb\xbf" + (STUDY + REST).encode())
    assert load(tmp_path / "marked.toml", (), declared).name == "small"
