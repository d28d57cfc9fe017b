"""`tuner dashboard`: all studies as live pages."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tuner.cli import options
from tuner.cli.accounts import token, user
from tuner.cli.terminal import echo
from tuner.settings import Settings

if TYPE_CHECKING:
    from tuner.store.studies import Study

FILE = click.Path(path_type=Path, dir_okay=False, exists=True)

NICE = 5
"""By how much the server is nicer than who started it, as nice(1) counts."""


@click.group(
    invoke_without_command=True,
    subcommand_metavar="[COMMAND]",
    epilog=options.examples("tuner dashboard --port 8080", "tuner dashboard user add maria"),
)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    metavar="ADDRESS",
    help="Address to listen on; 0.0.0.0 means all interfaces.",
)
@click.option(
    "--port",
    default=8080,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Port to listen on; 0 picks a free port.",
)
@click.option(
    "--allow-host",
    multiple=True,
    metavar="NAME",
    help="Additional host name by which browsers reach it, such as tuner.example.org; repeatable.",
)
@click.option("--tls-cert", type=FILE, help="Serve https with this certificate (PEM).")
@click.option("--tls-key", type=FILE, help="The certificate's private key (PEM).")
@click.option(
    "--trusted-proxy",
    multiple=True,
    metavar="ADDRESS",
    help="Address or network of a TLS-terminating proxy whose X-Forwarded headers are trusted; "
    "repeatable.",
)
@click.option(
    "--base-path",
    default="",
    metavar="/PATH",
    help="Serve below this path, such as /tuner, of a host that serves other programs, too. The "
    "proxy has to pass the path on unchanged, and everybody has to log in.",
)
@click.option(
    "--insecure-http",
    is_flag=True,
    help="Allow plain HTTP on non-loopback addresses, if something else protects the connection.",
)
@click.option(
    "--allow-writes",
    is_flag=True,
    help="Let operators write notes and preferences through optuna-dashboard, too.",
)
@click.option(
    "--first-user",
    metavar="NAME",
    help="While nobody can log in, add this operator and print a link to choose a password.",
)
@click.option(
    "--with-key",
    is_flag=True,
    help="Also print a link that logs in anyone who opens it on this machine.",
)
@options.objectives_option
@options.hook_options
@options.log_format_option
@click.pass_context
def dashboard(
    context: click.Context,
    /,
    host: str,
    port: int,
    allow_host: tuple[str, ...],
    tls_cert: Path | None,
    tls_key: Path | None,
    trusted_proxy: tuple[str, ...],
    base_path: str,
    first_user: str | None,
    objective_folders: tuple[Path, ...],
    *,
    insecure_http: bool,
    allow_writes: bool,
    with_key: bool,
) -> None:
    """Serve live web pages for all studies, with optuna-dashboard.

    Pages show the same results as the commands and update live during
    training; docs/dashboard.md lists them. On 127.0.0.1, the user who started
    the dashboard need not log in. Everyone else must, and at any other address
    everyone must. Prometheus reads /metrics; see docs/watching.md.
    """
    if context.invoked_subcommand is not None:
        return
    from tuner.dashboard.server import Site, serve
    from tuner.notify.hooks import hooks_of
    from tuner.notify.notifier import Notifier
    from tuner.work import removal

    site = Site(
        host=host,
        port=port,
        names=allow_host,
        proxies=trusted_proxy,
        base=base_path,
        certificate=tls_cert,
        certificate_key=tls_key,
        insecure_http=insecure_http,
        writes=allow_writes,
        first_user=first_user,
        with_key=with_key,
        objectives=options.objective_folders(None, objective_folders),
    )
    settings: Settings = context.obj
    hooks = hooks_of(settings.hooks)
    with (
        options.open_database(settings) as database,
        Notifier(database, hooks, dashboard=settings.hooks.dashboard),
    ):

        def delete(study: "Study") -> str:
            remains = removal.delete(settings, database, study, elsewhere=False)
            return f"{study.title} is deleted. {remains}" if remains else ""

        # After the embedded database, which may have been started above and would inherit it: the
        # pages of readers give way to workers, whose calls wait for the same cores.
        os.nice(NICE)
        serve(settings, database, site, delete, ready=lambda lines: echo("\n".join(lines)))


dashboard.add_command(user)
dashboard.add_command(token)
