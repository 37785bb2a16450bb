"""`edgeq serve`: run the gateway in the foreground."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from edgeq.cli.arguments import Once, UsageError, add_config, config_file
from edgeq.errors import EXIT_USAGE, ConfigError

if TYPE_CHECKING:
    from edgeq.config.load import Document

SUMMARY: Final = "run the gateway in the foreground"
EXAMPLES: Final = """\
examples:
  edgeq serve --listen 127.0.0.1:8080 --upstream http://127.0.0.1:9000
  edgeq serve --config /etc/edgeq/edgeq.toml --workers 4
  edgeq serve --demo                    # with an upstream and a provider of models to try it against

signals: TERM, INT: finish what runs, then stop; HUP: read the configuration again; USR1: reopen the access log
"""

DEMO_LISTEN: Final = "127.0.0.1:8080"
CHAT: Final = '{"model": "demo", "stream": true, "messages": [{"role": "user", "content": "hello"}]}'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the quickstart, and those that are stronger than the file."""
    parser.add_argument(
        "--listen", action=Once, metavar="ADDR", help='where to listen: "127.0.0.1:8080", "[::]:80", "unix:/PATH"'
    )
    parser.add_argument(
        "--upstream", action=Once, metavar="URL", help="without a file: where requests go, http://HOST:PORT"
    )
    parser.add_argument(
        "--demo",
        action="store_true",
        help="without a file: start a demo upstream and a demo provider, and serve them",
    )
    parser.add_argument("--workers", metavar="N", type=int, help="worker processes; 0: one per usable core")
    parser.add_argument("--admin", metavar="PATH", help="path of the admin socket")
    parser.add_argument("--pidfile", metavar="FILE", help="write the process id there")
    add_config(parser)


def run(args: argparse.Namespace) -> int:
    """Load, then hand over to the supervisor."""
    import signal

    # A file that is changed while we load it must not be missed, nor end us: the supervisor unblocks what it handles.
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGHUP, signal.SIGUSR1))
    try:
        if args.demo:
            return _run_demo(args)
        return _serve(_reader(args), args.pidfile)
    except ConfigError as error:
        from edgeq.config.load import COMMAND_LINE

        if any(problem.file != COMMAND_LINE for problem in error.problems):
            raise
        print(error, file=sys.stderr)
        return EXIT_USAGE


def _reader(args: argparse.Namespace) -> Callable[[], Document]:
    """How to read the configuration, now and at each reload."""
    from edgeq.config import load

    if args.upstream is None:
        overrides = load.Overrides(args.listen, args.workers, args.admin)
        try:
            file = config_file(args.config)
        except UsageError as error:
            raise UsageError(f"{error}, or say --listen ADDR --upstream URL, or --demo to try it") from None
        return lambda: load.read_file(file, overrides)
    if args.config is not None:
        raise UsageError("--upstream is for running without a file; with --config, name the upstream in the file")
    if args.listen is None:
        raise UsageError("--upstream needs --listen ADDR")
    return lambda: load.quickstart(args.listen, args.upstream, args.workers or 0, args.admin or "")


def _run_demo(args: argparse.Namespace) -> int:
    from edgeq.cli import demo_child_io
    from edgeq.cli.demo_config import BEHAVIOUR, demo_config
    from edgeq.config import load
    from edgeq.config.address import parse_listen

    if args.upstream is not None or args.config is not None:
        raise UsageError("--demo brings its own upstream: say neither --upstream nor --config")
    listen = args.listen or DEMO_LISTEN
    overrides = load.Overrides(listen, args.workers, args.admin)
    with (
        demo_child_io.started("demo") as url,
        demo_child_io.started("demo-llm", "--behave", BEHAVIOUR) as provider_url,
    ):

        def read() -> Document:
            return load.read_text(demo_config(url, provider_url), "the demo's configuration", overrides)

        read().build()  # or what is wrong with `listen` would be no message
        where = parse_listen(listen)
        host = f"[{where.host}]" if where.family == "ipv6" else where.host
        curl = f"--unix-socket {where.path} http://demo" if where.path else f"http://{host}:{where.port}"

        def serving() -> None:
            lines = [
                f"demo upstream at {url}, demo provider of models at {provider_url}; now try:",
                f"  curl -i {curl}/",
                f"  curl -iN {curl}/v1/chat/completions -d '{CHAT}'",
            ]
            if args.admin:
                lines.append(f"  edgeq top --admin {args.admin}")
            print("\n".join(lines), file=sys.stderr, flush=True)

        return _serve(read, args.pidfile, serving)


def _serve(read: Callable[[], Document], pidfile: str | None, serving: Callable[[], None] | None = None) -> int:
    import time

    from edgeq.config.changes_io import read_changes
    from edgeq.config.live import Live

    live = Live(read, read_changes, time.time())
    # Imported last: everything else must have been found right before a server is loaded.
    from edgeq.supervisor import run_io

    return run_io.serve(live, pidfile, serving=serving)
