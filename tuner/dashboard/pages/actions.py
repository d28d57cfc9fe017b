"""The actions of operators on a study's page, by the same functions as the commands."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import sqlalchemy as sa
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from tuner.dashboard.callers import Caller, same
from tuner.dashboard.desk import Desk
from tuner.dashboard.pages.login import form
from tuner.dashboard.rendering import environment, message, number_in, study_path
from tuner.errors import UserError
from tuner.store import control
from tuner.store.optuna_storage import Binding
from tuner.store.overview import overview
from tuner.store.studies import Study

logger = logging.getLogger(__name__)

Delete = Callable[[Study], str]
"""Deletes a study with its checkpoints, which this room does not handle; returns a message."""


@dataclass(frozen=True)
class Act:
    """A requested action with the fields of its form."""

    desk: Desk
    study: Study
    who: str
    fields: Mapping[str, str]
    delete: Delete

    def number(self, name: str) -> int | None:
        """Return a number in the form; None if it was left empty."""
        text = self.fields.get(name, "").strip()
        number = number_in(text)
        if text and number is None:
            raise UserError(f"{text!r} is not a whole number.")
        return number


def _stop(act: Act) -> None:
    control.stop(act.desk.database, act.study, act.who)


def _pause(act: Act) -> None:
    control.pause(act.desk.database, act.study, act.who)


def _go_on(act: Act) -> None:
    control.go_on(act.desk.database, act.study, act.who)


def _extend(act: Act) -> None:
    trials, seeds = act.number("trials"), act.number("seeds")
    control.extend(act.desk.database, act.study, trials=trials, seeds=seeds, who=act.who)


def _retry(act: Act) -> None:
    database = act.desk.database
    opened = control.retry(database, Binding(database), act.study, (), act.who)
    if opened is None:
        raise UserError(f"{act.study.title} has no failed trials.")


def _tag(act: Act) -> None:
    wanted = set(act.fields.get("tags", "").replace(",", " ").split())
    control.tag(act.desk.database, act.study, wanted, {*act.study.tags} - wanted, act.who)


def _note(act: Act) -> None:
    control.note(act.desk.database, act.study, act.fields.get("note", ""), act.who)


def _archive(act: Act) -> None:
    control.archive(act.desk.database, act.study, archived=True, who=act.who)


def _unarchive(act: Act) -> None:
    control.archive(act.desk.database, act.study, archived=False, who=act.who)


def _delete(act: Act) -> str:
    if act.fields.get("name", "").strip() != act.study.title:
        raise UserError(f"Nothing was deleted: type {act.study.title} to confirm.")
    told = act.delete(act.study)
    # Logged, because the study's events are deleted with it.
    logger.warning("%s was deleted by %s", act.study.title, act.who)
    return told or f"{act.study.title} is deleted."


ACTIONS: Mapping[str, Callable[[Act], str | None]] = {
    "stop": _stop,
    "pause": _pause,
    "go-on": _go_on,
    "extend": _extend,
    "retry": _retry,
    "tag": _tag,
    "note": _note,
    "archive": _archive,
    "unarchive": _unarchive,
    "delete": _delete,
}

DONE = {
    "stop": "Stopped: workers finish their epoch and exit.",
    "pause": "Paused: workers finish their current trials and start no new ones.",
    "go-on": "Resumed.",
    "extend": "Extended.",
    "retry": "Failed trials will be trained again.",
    "tag": "Tags saved.",
    "note": "Note saved.",
    "archive": "Archived: it no longer appears in lists.",
    "unarchive": "Unarchived.",
}
"""The message on a study's page after an action."""
OPENING = ("go-on", "extend", "retry")
"""Actions after which workers are needed."""


async def act(request: Request) -> Response:
    """Perform an action, then redirect to the study's page, which confirms it."""
    caller: Caller = request.state.caller
    fields = await form(request)
    if caller.form_key and not same(fields.get("csrf", ""), caller.form_key):
        return message(
            request,
            403,
            "Nothing was done: this page has expired. Go back, reload it and try again.",
        )
    name = request.path_params["action"]
    if name not in ACTIONS:
        return message(request, 404, f"There is no action {name!r}.")
    return await run_in_threadpool(_do, request, caller, name, fields)


def _do(request: Request, caller: Caller, name: str, fields: Mapping[str, str]) -> Response:
    desk: Desk = request.app.state.desk
    study = desk.study(request.path_params["name"])
    # A form refers to the study that its page showed, not to one launched under the same name
    # since. A script that does not send the id means the current one.
    if fields.get("id", str(study.study_id)) != str(study.study_id):
        raise UserError(f"Nothing was done: {study.title} is now the name of another study.")
    told = ACTIONS[name](Act(desk, study, caller.who, fields, request.app.state.delete))
    if told is not None:
        return message(request, 200, told)
    return RedirectResponse(f"{study_path(study.title)}?done={name}", 303)


def done(request: Request, study: Study) -> str:
    """Return the message for the action that led to a study's page; "" without one."""
    name = request.query_params.get("done", "")
    text = DONE.get(name, "")
    if name not in OPENING:
        return text
    desk: Desk = request.app.state.desk

    def ask(connection: sa.Connection) -> int:
        return len(overview(connection, study).workers)

    if not desk.read("workers", ask, study):
        text += f" No worker is running; start one with: tuner launch {study.title}"
    return text


environment.globals["done"] = done

ROUTES = [Route("/studies/{name}/actions/{action}", act, methods=["POST"])]
