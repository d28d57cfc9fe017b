"""What a study is as a document: its report, its pictures, its trials as a file."""

import threading
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response

from tuner.answers.sheets import MEDIA
from tuner.dashboard.desk import Desk
from tuner.dashboard.rendering import message
from tuner.errors import UserError
from tuner.names import meant
from tuner.results import Results

OLD = 60.0
"""Seconds after which a document that is no longer current is not shown any more. While a study
runs, none is current for long."""
EXPORTING = threading.Lock()
WHOLE_PAGE = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; frame-ancestors 'none'; sandbox"
)
"""A report has its style in itself, and no script."""


def report(request: Request) -> Response:
    """Write the report of a study as it is now."""
    desk: Desk = request.app.state.desk
    study = desk.study(request.path_params["name"])

    def ask(results: Results) -> str:
        from tuner.report.gather import gather
        from tuner.report.html import as_html

        return as_html(gather(results))

    kept = desk.write("report", ask, study)
    if kept is None or (not kept.current and kept.age > OLD):
        return _soon("The report is being written; it appears here by itself.")
    return HTMLResponse(kept.value, headers={"Content-Security-Policy": WHOLE_PAGE})


def picture(request: Request) -> Response:
    """Draw one of the pictures of `tuner plot` as SVG."""
    from tuner.pictures import KINDS

    desk: Desk = request.app.state.desk
    study = desk.study(request.path_params["name"])
    kind = request.path_params["kind"]
    by = request.query_params.get("by") or None
    # Looked at before anything is queued: else any address would be one more picture to draw.
    if kind not in KINDS:
        kinds = ", ".join(KINDS)
        raise UserError(f"There is no picture {kind!r}; take {kinds}.{meant(kind, KINDS)}")
    if by is not None and by not in study.spec.varied:
        varied = ", ".join(study.spec.varied)
        raise UserError(f"{study.title} does not vary {by!r}; it varies {varied}.")

    def ask(results: Results) -> bytes:
        from tuner.pictures import Subject, draw

        return draw(kind, Subject(results, by=by)).render("svg")

    kept = desk.write(("picture", kind, by), ask, study)
    if kept is None or (not kept.current and kept.age > OLD):
        return _soon("The picture is being drawn; it appears here by itself.")
    headers = {"Content-Security-Policy": WHOLE_PAGE}
    return Response(kept.value, media_type="image/svg+xml", headers=headers)


def _soon(text: str) -> Response:
    """Say that a document is not there yet; a browser asks again by itself."""
    return PlainTextResponse(f"{text}\n", 202, headers={"Refresh": "2"})


def export(request: Request) -> Response:
    """Write the trials that the table shows, all pages of them, as `tuner export` does."""
    from tuner.answers.columns import units
    from tuner.answers.sheets import contents, formats, selection
    from tuner.results import read_query

    desk: Desk = request.app.state.desk
    study = desk.study(request.path_params["name"])
    asked = request.query_params
    query, sort, columns = asked.get("q", ""), asked.get("sort") or None, asked.get("columns")
    ending = request.path_params.get("ending", "csv")
    form = formats.format_of(f"trials.{ending}")
    # `a\r\nb.csv` has a format, too.
    if form is None or "." in ending:
        known = [f".{one}" for endings in formats.ENDINGS.values() for one in endings]
        raise UserError(f"No format ends in {f'.{ending}'!r}; take {', '.join(known)}.")
    # One at a time: a large study's takes seconds, and all rows are in memory meanwhile. Nobody
    # waits for it here, where forty who do would hold all threads that pages are written by.
    if not EXPORTING.acquire(blocking=False):
        answer = message(request, 503, "Another export is being written. Try again in a moment.")
        answer.headers["Retry-After"] = "5"
        return answer
    try:
        with desk.results(study) as results:
            sheet = contents.trials(results, wide=True)
            sheet = selection.sort(selection.where(sheet, read_query(query)), sort)
            if columns:
                sheet = sheet.only(list(dict.fromkeys(filter(None, columns.split(",")))))
            layout = formats.Layout(
                exact={*study.spec.varied, *study.spec.fixed},
                units=units(sheet.columns, results, compared=None),
            )
            content = formats.write(sheet, form, layout)
    finally:
        EXPORTING.release()
    name = "".join(one for one in study.title if one.isalnum() or one in "_-@.") or "trials"
    headers = {"Content-Disposition": f"attachment; filename*=UTF-8''{quote(name)}.{ending}"}
    return Response(content, media_type=MEDIA[form], headers=headers)
