"""Checks that budget, search, replicates and space of a study fit together."""

from dataclasses import dataclass

from tuner.spec.faults import Faults
from tuner.spec.search import PRUNERS
from tuner.spec.space import LARGEST_GRID, Dimension, Range, Space
from tuner.spec.study import Budget, Replicates, Search


@dataclass(frozen=True)
class Plan:
    """The parts that determine the number of trials; None for a part with faults."""

    budget: Budget | None
    replicates: Replicates | None
    search: Search | None
    space: Space | None
    dimensions: tuple[Dimension, ...] = ()
    """The valid dimensions of the space, even if others have faults."""
    may_be_empty: bool = False
    """Whether nothing needs to vary, because `--set` may have fixed everything."""


def check_plan(plan: Plan, faults: Faults) -> None:
    """Report parts that do not fit together; parts with their own faults are skipped."""
    if plan.replicates is not None:
        _check_top(plan.replicates, faults)
        splits, seeds = plan.replicates.splits, plan.replicates.seeds
        if splits > seeds:
            words = f"{splits} splits need as many seeds, got {seeds}"
            faults.add(("replicates", "splits"), words)
    if plan.search is not None and plan.search.allocator == "promote":
        _check_promotion(plan.search, plan.replicates, faults)
    grid = _check_grid(plan, faults)
    if plan.budget is not None and plan.replicates is not None:
        _check_budget(plan.budget, plan.replicates, grid, faults)


def _check_top(replicates: Replicates, faults: Faults) -> None:
    if replicates.of == "all":
        if replicates.top is not None:
            faults.add(("replicates", "top"), 'only with of = "top"; leave it out with of = "all"')
        return
    if replicates.top is None:
        faults.add(("replicates", "top"), 'missing; of = "top" needs how many to replicate')
    if replicates.seeds < 2:
        faults.add(("replicates", "seeds"), f'of = "top" needs 2 or more, got {replicates.seeds}')


def _check_promotion(search: Search, replicates: Replicates | None, faults: Faults) -> None:
    if PRUNERS[search.pruner].compares:
        own = ", ".join(name for name, method in PRUNERS.items() if not method.compares)
        faults.add(
            ("search", "pruner"),
            f'{search.pruner} stops trials that allocator = "promote" would only pause; '
            f"choose one of {own}",
        )
    if replicates is None:
        return
    if replicates.of == "all" and replicates.seeds > 1:
        faults.add(
            ("replicates", "of"),
            'allocator = "promote" compares settings under one seed; '
            'write of = "top" to train the best under more',
        )
    finish = search.allocator_options.get("finish")
    if finish is not None and replicates.top is not None and int(finish) < replicates.top:
        faults.add(
            ("search", "allocator_options", "finish"),
            f"the race needs {replicates.top} complete trials (top), got {finish}",
        )


def _check_grid(plan: Plan, faults: Faults) -> int | None:
    """Return the grid's size if the sampler is a grid and the grid is valid."""
    if plan.search is None:
        return None
    if plan.search.sampler != "grid":
        _check_sampler(plan, plan.search.sampler, faults)
        return None
    endless = [d for d in plan.dimensions if isinstance(d, Range) and d.step is None]
    for dimension in endless:
        faults.add(
            ("space", dimension.name), "a grid over a range needs a step, or list the values"
        )
    if endless or plan.space is None:
        return None
    size = plan.space.size()
    if size > LARGEST_GRID:
        faults.add(("space",), f"the grid has more than {LARGEST_GRID:,} combinations; shorten it")
        return None
    return size


def _check_sampler(plan: Plan, sampler: str, faults: Faults) -> None:
    if plan.budget is not None and plan.budget.trials == "grid":
        faults.add(
            ("budget", "trials"), f'"grid" needs sampler = "grid", not {sampler!r}; write a number'
        )
    if plan.space is not None and not plan.space.dimensions and not plan.may_be_empty:
        faults.add(("space",), f'nothing varies, so {sampler} has nothing to choose; use "grid"')


def _check_budget(budget: Budget, replicates: Replicates, grid: int | None, faults: Faults) -> None:
    path = ("budget", "trials")
    if budget.money is not None and budget.price_per_hour is None:
        faults.add(("budget", "money"), "needs price_per_hour, the price of an hour of a device")
    trials, seeds = budget.trials, replicates.seeds
    if trials == "grid":
        explored = grid
    elif replicates.of == "all" and trials % seeds:
        faults.add(
            path,
            f"{trials} trials cannot be divided evenly among {seeds} seeds{_near(trials, seeds)}",
        )
        explored = None
    else:
        explored = replicates.explored(trials)
    if explored is not None and trials != "grid" and grid is not None and explored > grid:
        most = replicates.total(grid)
        faults.add(path, f'{trials} trials are more than the grid has ({most}); write "grid"')
    top = replicates.top if replicates.of == "top" else None
    if explored is not None and top is not None and top > explored:
        count = f"only {explored} are explored" if explored > 0 else "none would be explored"
        words = f"{top} is more than there is to choose from: {count}"
        faults.add(("replicates", "top"), words)


def _near(trials: int, seeds: int) -> str:
    """Suggest the two nearest budgets that are multiples of the seeds."""
    below = trials // seeds * seeds
    return f"; write {below} or {below + seeds}" if below else f"; write {seeds} or more"
