"""`tuner dashboard`: all studies as live pages."""

import click

from tuner.cli import options
from tuner.cli.terminal import echo
from tuner.settings import Settings


@click.command(epilog="\b\nExample:\n  tuner dashboard --port 8080")
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on; anything but this machine's own is refused.",
)
@click.option(
    "--port",
    default=8080,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Port to listen on; 0 takes a free one.",
)
@click.option(
    "--behind-container",
    is_flag=True,
    hidden=True,
    help="Listen on all addresses; the container publishes loopback only.",
)
@click.pass_obj
def dashboard(settings: Settings, host: str, port: int, *, behind_container: bool) -> None:
    """Serve all studies as live pages on this machine, with optuna-dashboard beside them.

    Pages say what the commands say, and change by themselves while workers
    train; docs/dashboard.md lists them. Nothing can be changed through them.
    There is no login yet, so it listens on 127.0.0.1 only; from elsewhere use
    an SSH tunnel.
    """
    from tuner.dashboard.server import serve

    with options.open_database(settings) as database:
        serve(
            database,
            host,
            port,
            anywhere=behind_container,
            ready=lambda url: echo(f"{url}  (Ctrl-C ends it)"),
        )
