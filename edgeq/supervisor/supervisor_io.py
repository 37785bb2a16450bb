"""The supervisor: from the first bound socket to the last worker's end.

::

    bind everything -> spawner -> workers -> READY=1 -> (reloads) -> STOPPING=1 -> drain -> exit 0
          | StartError: nothing was started                              second signal: kill, exit 0

A reload is all or nothing. Sockets are bound first; then all workers, running and new, get the new configuration; only
when each of them has confirmed it do surplus workers and listeners go. If one of them cannot run it, the old one is
rolled out again, with a generation of its own, by the same steps. A live change (config/live.py) goes the same way,
only that files are not read again, and that a worker that hangs does not keep the others from it.

What the service manager has kept for us of the run before (legacy_io.py) comes first of all: then "bind everything"
takes over what listens already, and what is surplus is retired once the workers serve.
"""

from __future__ import annotations

import asyncio
import os
import platform
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from edgeq import __version__
from edgeq.admin.accounts import ACCOUNTS
from edgeq.admin.control import Changed, Reloaded, Wish
from edgeq.admin.render import Record
from edgeq.admin.server_io import AdminServer, MetricsServer
from edgeq.board.gcra_table import GcraTable
from edgeq.board.layout import Board
from edgeq.board.reading import age_ms, read
from edgeq.config.change import Change, ChangeError, NotSet
from edgeq.config.changes_io import read_changes, write_changes
from edgeq.config.diff import diff, needs_restart
from edgeq.config.live import Ended, Live, Plan, endpoint_names, endpoints_named
from edgeq.config.providers import parts_of, target_names
from edgeq.config.scarce import offered
from edgeq.config.schema import Config
from edgeq.config.schema_llm import Accounts
from edgeq.config.shown import MASK, is_secret, masked_value
from edgeq.errors import EXIT_CONFIG, EXIT_OK, ConfigError, EdgeqError, Problem, StartError
from edgeq.explain import verdict, watch
from edgeq.explain.gather import Gatherer
from edgeq.explain.recall import Recall
from edgeq.listener import tickets_io
from edgeq.llm import rests
from edgeq.llm.pauses import in_words
from edgeq.observe import history_io, log_io, sampler
from edgeq.observe.chronicle import Chronicle
from edgeq.observe.connections import merged
from edgeq.observe.metrics import Metrics
from edgeq.observe.overview import STUCK_MS, Overview
from edgeq.observe.recorder import Recorder
from edgeq.observe.rest_ends import RestEnds
from edgeq.observe.storm_watch_io import StormWatch
from edgeq.supervisor import process_io
from edgeq.supervisor.fleet_io import Confirmation, Fleet, Target
from edgeq.supervisor.launch import Launch
from edgeq.supervisor.legacy_io import Legacy, inherit
from edgeq.supervisor.slots import Resize
from edgeq.supervisor.sockets_io import Listeners, kernel_backlog_limit
from edgeq.supervisor.status import Facts, queue_words, status_line
from edgeq.supervisor.stuck_io import Rescuer
from edgeq.supervisor.systemd_io import Notifier, take_descriptors
from edgeq.worker.control_io import ORPHAN_MARGIN_S, configure_log

if TYPE_CHECKING:
    from edgeq.llm.keeper_io import Keeper
    from edgeq.llm.lately import Used

_log = log_io.get_logger()
MAX_WORKERS: Final = 256
_STATUS_S: Final = 5.0
_LOOKS_PER_TIMEOUT: Final = 4
"""A worker that is silent for less than a quarter of the watchdog's time is never noticed by it, one that is silent for
the whole of it always is."""
_ANSWER_S: Final = 1.0
"""For a worker to tell of its connections: one whose loop lags so long is overloaded, and said to be silent."""
_KILL_WAIT_S: Final = 5.0
_LOOK_FOR_ENDED_S: Final = 60.0
_END_AGAIN_S: Final = 10.0


_REST_ENDED: Final = {False: "provider_model_rest_ended", True: "provider_key_rest_ended"}


class _Applied(NamedTuple):
    """What came of a plan."""

    error: str
    behind: tuple[int, ...] = ()
    """Slots that do not run it yet."""
    lost: Sequence[str] = ()
    """Of models, what keys name (`Reloaded.lost`)."""


class Supervisor:
    """One gateway. It is the `Control` of the admin socket."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        live: Live,
        pidfile: str | None,
        launch: Launch,
        serving: Callable[[], None] | None = None,
    ) -> None:
        """`serving()` is called once, when the workers serve. Raises StartError for what the manager must not pass."""
        self._live = live
        self._started_with = live.config.server
        """Some of its keys hold until the end, whatever a reload brings."""
        self._pidfile = Path(pidfile) if pidfile else None
        self._launch = launch
        self._serving = serving
        self._loop = loop
        self._notifier = Notifier.from_environment()
        inheritance = inherit(take_descriptors())
        inherited_board = inheritance.take_board(MAX_WORKERS)
        self._board = inherited_board or Board.create(MAX_WORKERS)
        self._board.set_started(False)
        legacy = Legacy(self._notifier)
        legacy.begin(inheritance, self._board)
        self._listeners = Listeners(inheritance, legacy)
        self._fleet = Fleet(loop, self._listeners, self._board, launch, legacy)
        self._rescuer = Rescuer(
            loop, self._board, self._fleet, self._listeners, lambda: live.config.server.stuck, self._on_stuck
        )
        self._overview = Overview(
            self._board,
            self._fleet,
            self._listeners,
            lambda: live.config,
            lambda: live.changes,
            self._rescuer.table,
            self._waiting,
            self._fleet.deaths,
        )
        self._recorder = Recorder(self._board, self._fleet, self._listeners, lambda: self._config)
        self._storms = StormWatch(self._recorder)
        self._rest_ends = RestEnds()
        self._chronicle = Chronicle(self._board)
        self._gatherer = Gatherer(
            self._board, self._fleet, self._listeners, self._overview, lambda: self._config, self._used
        )
        self._recall = Recall(self._board, self._recorder)
        self._fleet.before_bury = self._before_bury
        log_io.tap(self._chronicle.take)
        patience_s = float(live.config.server.drain_timeout) + ORPHAN_MARGIN_S + launch.kill_margin_s
        self._fleet.adopt(inheritance.workers, patience_s, inherited_board is not None)
        self._sampling: asyncio.TimerHandle | None = None
        self._watching: asyncio.TimerHandle | None = None
        self._recording: asyncio.TimerHandle | None = None
        self._keeper: Keeper | None = None
        """Of accounts."""
        self._admin: AdminServer | None = None
        self._metrics: MetricsServer | None = None
        self._reloaded = True
        """The last reload went well."""
        self._generation = 0
        self._run = secrets.token_hex(4)
        """Generations are numbers of this run only."""
        self._etag = ""
        self._idle: Sequence[Problem] = ()
        self._ending: asyncio.TimerHandle | None = None
        """Of the live change that is over next."""
        self._reloading = asyncio.Lock()
        self._reloads: set[asyncio.Task[Reloaded]] = set()
        self._endings: set[asyncio.Task[None]] = set()
        self._started = False
        self._stop = asyncio.Event()
        self._stop_now = asyncio.Event()
        self._told_of_tickets = False

    @property
    def _config(self) -> Config:
        """What runs."""
        return self._live.config

    async def run(self) -> int:
        """Serve until told to stop. Returns the exit code. Raises StartError if it cannot start."""
        told = asyncio.ensure_future(self._stop.wait())
        try:
            start = asyncio.ensure_future(self._start())
            await asyncio.wait((start, told), return_when=asyncio.FIRST_COMPLETED)
            if start.done():
                start.result()
                await self._status_until_stopped()
            else:
                start.cancel()
                await asyncio.wait((start,))
            await self._leave()
        finally:
            told.cancel()
            await asyncio.wait((told,))
            await self._clean_up()
        return EXIT_OK

    async def _start(self) -> None:
        async with self._reloading:  # a signal that comes now is for a file that we may have read before it
            await self._bring_up()

    async def _bring_up(self) -> None:
        plan = self._prepare(self._config)
        if unnamed := self._listeners.unnamed:
            raise StartError(f"the .socket unit listens on {unnamed[0]}, and no listener does", EXIT_CONFIG)
        self._open_accounts()
        if self._config.server.admin:
            self._admin = AdminServer(self._config.server, self)
            await self._admin.start()
        if self._config.server.metrics:
            self._metrics = MetricsServer(self)
            await self._metrics.start(self._config.server.metrics)
        self._configure_history(self._config)
        self._record()
        self._sample()
        self._look()
        self._rescuer.start()
        if not await self._fleet.start_spawner():
            raise StartError("cannot start the process that forks the workers; what it said is above")
        confirmation = await self._roll_out(self._config, plan, self._launch.start_timeout_s)
        if problems := confirmation.problems():
            raise StartError("\n".join(problems))
        self._etag = self._tag()
        self._tell_ended(self._live.ended)
        # Or what has ended would be back when the file says again what it has said before.
        ended = [one for one in self._live.ended if one.change.persisted]
        if ended and (problem := self._write_kept(self._live.changes_file, self._live.changes)):
            _log.error("live changes are not kept as they are", problem=problem)
        self._tell_idle()
        self._await_end()
        if self._pidfile is not None:
            try:
                self._pidfile.write_text(f"{os.getpid()}\n")
            except OSError as error:
                raise StartError(f"cannot write the pid file {self._pidfile}: {error.strerror}") from error
        self._started = True
        self._board.set_started(True)
        self._notifier.ready()
        self._look_for_progress()
        _log.info("serving", workers=len(self._fleet.table.active()), version=__version__)
        if self._serving is not None:
            self._serving()
        await self._settle(self._config, plan)

    def _used(self, model: str) -> list[Used]:
        return [] if self._keeper is None else self._keeper.used(model)

    def _open_accounts(self) -> None:
        if self._config.accounts is None:
            return
        from edgeq.llm.keeper_io import Keeper  # and with it SQLite

        self._keeper = Keeper(self._loop, self._config.accounts, self._fleet, offered(self._config))
        self._fleet.accounts = self._keeper.told
        self._fleet.leftover_fd = self._keeper.leftover_fd
        self._fleet.on_usage = self._keeper.take

    def _look_for_progress(self) -> None:
        """Tell the watchdog only if every worker that serves has moved on."""
        if not self._notifier.watchdog_s:
            return
        look_s = self._notifier.watchdog_s / _LOOKS_PER_TIMEOUT
        self._loop.call_later(look_s, self._look_for_progress)
        if silent := self._rescuer.silent(look_s):
            _log.warning("no progress: the watchdog is not told", slots=silent)
            self._notifier.status(self._status())
        else:
            self._notifier.progress()

    async def _status_until_stopped(self) -> None:
        while not self._stop.is_set():
            self._notifier.status(self._status())
            try:
                async with asyncio.timeout(_STATUS_S):
                    await self._stop.wait()
            except TimeoutError:
                continue

    async def _leave(self) -> None:
        timeout_s = float(self._config.server.drain_timeout)
        self._notifier.stopping(timeout_s + self._launch.handshake_grace_s + self._launch.kill_margin_s)
        _log.info("draining", timeout_s=timeout_s)
        stop = asyncio.ensure_future(self._stop_fleet(timeout_s))
        now = asyncio.ensure_future(self._stop_now.wait())
        await asyncio.wait((stop, now), return_when=asyncio.FIRST_COMPLETED)
        if not stop.done():
            _log.warning("stopping at once")
            self._fleet.kill_all()
            self._fleet.kill_survivors()
            await asyncio.wait((stop,), timeout=_KILL_WAIT_S)
            stop.cancel()
        now.cancel()

    async def _stop_fleet(self, timeout_s: float) -> None:
        # A reload that is under way ends first: it owns sockets and workers until then. No new one begins.
        async with self._reloading:
            self._rescuer.stop()  # who is set aside stays so: others empty its queues
            await self._fleet.stop(timeout_s)

    async def _clean_up(self) -> None:
        for task in (*self._reloads, *self._endings):
            task.cancel()
        if self._ending is not None:
            self._ending.cancel()
        self._fleet.kill_all()
        self._fleet.spawner.stop()
        self._listeners.close()
        self._rescuer.stop()
        for timer in (self._sampling, self._recording, self._watching):
            if timer is not None:
                timer.cancel()
        await self._storms.close()
        for service in (self._metrics, self._admin, self._keeper):
            if service is not None:
                await service.close()
        log_io.tap(None)
        if self._started and self._pidfile is not None:
            self._pidfile.unlink(missing_ok=True)
        if self._started or self._stop.is_set():  # a start that failed says so itself
            _log.info("stopped")

    # Signals.

    def on_stop_signal(self) -> None:
        """The first one drains, the second one ends it at once."""
        if self._stop.is_set():
            self._stop_now.set()
        self._stop.set()

    def on_reload_signal(self) -> None:
        """The outcome is in the log."""
        if len(self._reloads) > 1:
            return  # one runs and one waits: that one will read what this one would
        task = asyncio.ensure_future(self.reload())
        self._reloads.add(task)
        task.add_done_callback(self._reloads.discard)

    def on_reopen_signal(self) -> None:
        """Log files were moved away."""
        self._fleet.reopen_logs()

    # Control, for the admin socket.

    def show(self, subject: str) -> Sequence[Record]:
        """From the board, without asking the workers: one that hangs is seen, not waited for."""
        return self._overview.subjects[subject]()

    async def history(self, resource: str, seconds: float, step_s: float) -> Sequence[Record] | str:
        """What was noted ten times a second, or what is wrong with the name."""
        return await history_io.records(self._recorder, resource, seconds, step_s)

    def events(self, count: int) -> Sequence[Record]:
        """Of all processes."""
        return self._chronicle.last(count)

    def follow_events(self) -> AsyncIterator[Record]:
        """Of all processes, and an empty record now and then."""
        return self._chronicle.follow()

    def explain(self, what: str) -> Record | None:
        """From the board as well. A name of a resource goes before an id, which clients may choose."""
        facts = self._gatherer.facts()
        if not what or verdict.is_known(facts, what):
            if self._keeper is not None and what:
                registry = self._keeper.registry
                budgets = tuple(registry.budgets(what, self._keeper.spending, time.time()))
                owners = [one for one, _ in registry.owners(what) if one != what]
                facts = replace(facts, budgets=budgets, named={**facts.named, **({what: owners} if owners else {})})
            found = verdict.explain(facts, what)
            trouble = self._keeper.trouble() if self._keeper is not None and not what else ""
            also = [{"resource": ACCOUNTS, "cause": "store_unwritten", "says": trouble}] if trouble else []
            return {**found, "also": [*also, *found["also"]]}
        return self._recall.explain(what)

    def remembered(self) -> str:
        """Of requests, in words."""
        return self._recall.remembered()

    def resources(self) -> Sequence[str]:
        """With callers that have limits and have asked lately."""
        return verdict.names(self._gatherer.facts())

    @property
    def tenants_are_listed(self) -> bool:
        """By [accounts]."""
        return self._config.tenant.key == "key"

    async def connections(self, count: int) -> Sequence[Record]:
        """The one subject for which the workers are asked; who does not answer is named."""
        return merged(await self._fleet.connections(count, _ANSWER_S), count)

    def metrics(self, accept: str) -> tuple[str, bytes]:
        """For Prometheus."""
        build = {"version": __version__, "python": platform.python_version()}
        fails = None if self._keeper is None else bool(self._keeper.trouble())
        return Metrics(self._board, self._overview, self._generation, self._reloaded, build, fails).expose(accept)

    def version(self) -> Record:
        """Of edgeq and of what runs it."""
        return {"version": __version__, "python": platform.python_version(), "generation": self._generation}

    def is_ready(self) -> bool:
        """At least one worker serves, and does not hang, and we do not stop."""
        serving = self._fleet.table.serving() - set(self._rescuer.silent(STUCK_MS / 1000))
        return self._started and not self._stop.is_set() and bool(serving)

    def wake(self, name: str) -> tuple[Sequence[str], Sequence[str]] | None:
        """On the board, where the workers look."""
        board = self._board
        arrivals = GcraTable(board, 0)
        now_ns = time.monotonic_ns()
        ended = rests.end_rests(self._config, arrivals, name, now_ns)
        if ended is None:
            return None
        meters = [board.row(slot).meters for slot in range(board.rows_used)]
        forgotten = rests.end_heard(self._config, arrivals, meters, name, now_ns)
        self._overview.forget()
        for resource, is_whole_key in self._rest_ends.woken(ended):
            _log.info(_REST_ENDED[is_whole_key], resource=resource, detail="it is asked again: somebody has woken it")
        return ended, forgotten

    def wake_names(self) -> Sequence[str]:
        """Providers, keys, and models at these."""
        return rests.names(self._config)

    def begin_highs(self) -> None:
        """By the workers, at their next tick."""
        self._overview.begin_highs()

    def drain(self) -> None:
        """As the first SIGTERM."""
        self._stop.set()

    def endpoints(self, text: str) -> Sequence[tuple[str, str]]:
        """Those that run."""
        return endpoints_named(self._config, text)

    def endpoint_names(self) -> Sequence[str]:
        """The same."""
        return endpoint_names(self._config)

    def parts(self) -> Mapping[str, tuple[str, str]]:
        """Those that run."""
        return parts_of(self._config)

    @property
    def accounts(self) -> Keeper | None:
        """Their keeper; None without [accounts]."""
        return self._keeper

    @property
    def etag(self) -> str:
        """Of the configuration that runs: another one after each reload and each live change."""
        return self._etag

    async def reload(self) -> Reloaded:
        """Load, compare, apply. Reloads and live changes follow one another."""
        ended: tuple[Ended, ...] = ()
        lost: Sequence[str] = ()
        async with self._reloading:
            if self._stop.is_set() or not self._started:
                return Reloaded(False, self._generation, "not serving")
            self._notifier.reloading()
            try:
                plan = self._live.reload(time.time())
            except ConfigError as error:
                problem = str(error)
                for one in error.problems:
                    _log.error("configuration refused, the old one stays", problem=str(one))
            except (EdgeqError, OSError) as error:
                problem = str(error)
                _log.error("configuration refused, the old one stays", problem=problem)
            else:
                applied = await self._apply(plan)
                problem, lost = applied.error, applied.lost
                ended = () if problem else plan.ended
            self._overview.forget()
            self._reloaded = not problem
            self._notifier.ready()
        told = [f"{one.change.name}: {one.why}" for one in ended]
        return Reloaded(not problem, self._generation, problem, told, self._waiting(), lost)

    def _waiting(self) -> Sequence[str]:
        """Keys of what runs that only a restart will bring."""
        return needs_restart(self._started_with, self._config.server)

    async def change(self, wish: Wish) -> Changed:
        """Set or unset one key. All or nothing, as a reload, but a worker that hangs is not waited for."""
        async with self._reloading:
            done = await self._change(wish)
            self._overview.forget()
        return done

    async def _change(self, wish: Wish) -> Changed:
        path = wish.change(0.0).path
        told = {**wish.told(), "value": masked_value(path, wish.value)}
        if is_secret(path, self._config):
            told = {**told, "key": MASK, "value": MASK}

        def refused(status: int, error: str) -> Changed:
            # Without the value: it may be a secret in the wrong place, as a password in a URL.
            known = {key: one for key, one in told.items() if key != "value"}
            _log.warning("live change refused", **known, problem=error)
            return Changed(status, self._generation, self._etag, error)

        if self._stop.is_set() or not self._started:
            return refused(503, "not serving")
        if not wish.is_of(self._etag):
            return refused(412, f"the configuration has changed since {wish.if_match}: it is {self._etag} now")
        now = time.time()
        try:
            plan = self._live.plan(wish.change(now), wish.value, wish.undoes)
        except NotSet as error:
            return refused(422, wish.in_vain or str(error))
        except (ConfigError, ChangeError) as error:
            return refused(422, str(error))
        if needs_start := diff(self._config, plan.config).restart:
            return refused(422, f"{needs_start[0]} takes effect only at the next start: change the file, and restart")
        if problem := self._keep(plan):
            return refused(500 if plan.document.changes_file else 422, f"nothing was changed: {problem}")
        before, idle = self._live.changes, self._idle
        applied = await self._apply(plan, True)
        if applied.error:
            self._write_kept(plan.document.changes_file, before)
            return refused(422, applied.error)
        _log.info("live change", **told, generation=self._generation)
        new = [f"{one.key_path}: {one.message}" for one in self._idle if one not in idle]
        return Changed(200, self._generation, self._etag, "", applied.behind, [*new, *applied.lost])

    def _keep(self, plan: Plan) -> str:
        """Write down the changes that shall outlive a restart, if they are others than before. Returns the problem."""
        file = plan.document.changes_file
        if _kept(plan.changes) == _kept(self._live.changes) and file == self._live.changes_file:
            return ""
        if not file and _kept(plan.changes):
            return "there is no configuration file beside which it could be kept; server.changes can name one"
        return self._write_kept(file, plan.changes)

    def _write_kept(self, file: str, changes: Sequence[Change]) -> str:
        if not file or (not _kept(changes) and not os.path.exists(file)):
            return ""
        try:
            read_changes(file)  # what somebody has written there by hand, and is wrong, is not lost
            write_changes(file, _kept(changes))
        except ConfigError as error:
            return str(error)
        except OSError as error:
            return f"{file} cannot be written: {error.strerror}"
        return ""

    async def _apply(self, plan: Plan, kept: bool = False) -> _Applied:
        """Have all workers run a plan, or none. `kept`: what shall outlive a restart is written down already."""
        config = plan.config
        changes = diff(self._config, config)
        if _moves_accounts(self._config.accounts, config.accounts):
            # Keys must not seem to be asked for where they are not, nor the other way round.
            return _Applied("accounts and accounts.store change only at a restart: nothing was applied")
        for key in needs_restart(self._started_with, config.server) if plan.rereads else ():
            _log.warning("takes effect at the next start", key=key)
        try:
            size = self._prepare(config)
        except StartError as error:
            _log.error("configuration refused, the old one stays", problem=str(error))
            return _Applied(str(error))
        # Who hangs takes what is sent to it when it goes on. It is waited for only where its sockets are at stake.
        addresses = {one.address for one in config.listener} != {one.address for one in self._config.listener}
        in_all = bool(plan.rereads or size.start or size.leave or addresses)
        timeout_s = self._launch.apply_timeout_s if in_all else self._launch.change_timeout_s
        confirmation = await self._roll_out(config, size, timeout_s, plan.rereads)
        if failures := confirmation.problems() if in_all else confirmation.failures:
            for failure in failures:
                _log.error("configuration taken back", problem=failure)
            back = self._prepare(self._config)
            await self._roll_out(self._config, back, timeout_s, plan.rereads)
            await self._settle(self._config, back)
            return _Applied("\n".join(failures))
        if not kept and (problem := self._keep(plan)):
            _log.error("live changes are not kept as they are", problem=problem)
        self._live.commit(plan)
        self._etag = self._tag()
        configure_log(config)
        self._configure_history(config)
        self._configure_admin(config)
        lost: Sequence[str] = ()
        if self._keeper is not None and config.accounts is not None:
            lost = self._keeper.configure(config.accounts, offered(config))
        await self._settle(config, size)
        _log.info("configuration applied", generation=self._generation, changes=list(changes.summary))
        self._tell_ended(plan.ended)
        self._tell_idle()
        self._await_end()
        for one in lost:
            _log.warning("model that keys name is no more", problem=one)
        return _Applied("", confirmation.behind, lost)

    def _tag(self) -> str:
        return f"{self._run}-{self._generation}"

    def _tell_ended(self, ended: Sequence[Ended]) -> None:
        for change, why in ended:
            key = MASK if is_secret(change.path, self._config) else change.key
            _log.warning("live change ended", resource=change.resource, key=key, why=why)

    def _tell_idle(self) -> None:
        """What has no effect, once while that is so."""
        idle = self._live.idle()
        for one in idle:
            if one not in self._idle:
                _log.warning("setting without effect", file=one.file, line=one.line, key=one.key_path, why=one.message)
        self._idle = idle

    def _await_end(self, least_s: float = 0.0) -> None:
        """See to it that changes end in time."""
        if self._ending is not None:
            self._ending.cancel()
            self._ending = None
        end = self._live.next_end()
        if end is not None:
            # Now and then, too: the clock of the calendar may be set.
            wait_s = min(max(end - time.time(), least_s), _LOOK_FOR_ENDED_S)
            self._ending = self._loop.call_later(wait_s, self._end)

    def _end(self) -> None:
        task = asyncio.ensure_future(self._end_changes())
        self._endings.add(task)
        task.add_done_callback(self._endings.discard)

    async def _end_changes(self) -> None:
        async with self._reloading:
            if self._stop.is_set():
                return
            try:
                plan = self._live.expired(time.time())
                failed = "" if plan is None else (await self._apply(plan)).error
            except ConfigError as error:
                failed = str(error)
            if failed:
                _log.error("a live change cannot end", problem=failed)
            self._overview.forget()
            self._await_end(_END_AGAIN_S if failed else 0.0)

    def _configure_admin(self, config: Config) -> None:
        if self._admin is not None:
            try:
                self._admin.configure(config.server)
            except StartError as error:  # too late to refuse: the workers run it
                _log.error("admin socket stays as it was", problem=str(error))

    def _configure_history(self, config: Config) -> None:
        self._recorder.configure()
        self._storms.configure(config.server.dumps)

    # Now and then.

    def _sample(self) -> None:
        loop = asyncio.get_running_loop()
        self._sampling = loop.call_later(sampler.EVERY_S, self._sample)
        self._overview.sample()
        self._chronicle.look()
        self._storms.look(time.monotonic())

    def _record(self) -> None:
        try:
            self._recorder.take(time.monotonic())
        finally:
            self._recording = asyncio.get_running_loop().call_later(self._recorder.pause_s, self._record)

    def _look(self) -> None:
        self._watching = self._loop.call_later(watch.EVERY_S, self._look)
        self._gatherer.look()
        if self._config.model:
            self._tell_rest_ends()

    def _tell_rest_ends(self) -> None:
        for one in self._rest_ends.look(time.monotonic(), self._overview.targets(), target_names(self._config)):
            rests = f" in {one.times} rests, between which it was asked in vain" if one.times > 1 else ""
            detail = f"it is asked again, after {in_words(max(1, round(one.lasted_s)))}{rests}"
            _log.info(_REST_ENDED[one.is_whole_key], resource=one.resource, reason=one.reason, detail=detail)

    def _on_stuck(self) -> None:
        self._overview.forget()
        self._notifier.status(self._status())

    def _before_bury(self, slot: int) -> None:
        self._rescuer.table.forget(slot)
        try:
            self._chronicle.bury(slot)
            self._recall.bury(slot)
            self._overview.bury(slot)
        except Exception:  # its successor matters more than what it has counted
            _log.exception("what a dead worker has told is lost", slot=slot)

    # The steps of start and reload.

    def _prepare(self, config: Config) -> Resize:
        """Have all sockets. Raises StartError, and then nothing has changed."""
        if config.server.user and os.geteuid() != 0:
            _log.warning("server.user has no effect: not started as root", user=config.server.user)
        process_io.credentials_of(config.server.user)
        try:
            plan = self._fleet.table.plan(config.server.workers or process_io.usable_cores())
        except ValueError as error:
            raise StartError(str(error)) from error
        if not self._told_of_tickets and any(one.tls is not None for one in config.listener):
            self._told_of_tickets = True
            if why := tickets_io.unavailable():
                _log.warning("TLS sessions resume only on the worker that began them", why=why)
        self._listeners.ensure(config.listener, (*self._fleet.table.active(), *plan.start))
        limit = kernel_backlog_limit()
        for one in config.listener:
            if limit is not None and one.backlog > limit:
                _log.warning(
                    "backlog cut by the kernel: raise net.core.somaxconn",
                    address=one.address,
                    backlog=one.backlog,
                    somaxconn=limit,
                )
        return plan

    async def _roll_out(self, config: Config, plan: Resize, timeout_s: float, rereads: bool = True) -> Confirmation:
        """Have all workers run a configuration."""
        self._generation += 1
        self._board.assign_listeners([one.address for one in config.listener])
        self._board.assign_resources(_resources(config))
        staying = [slot for slot in (*self._fleet.table.active(), *plan.start) if slot not in plan.leave]
        credentials = process_io.credentials_of(self._started_with.user)
        self._fleet.aim(Target.of(self._generation, len(staying), config, credentials, rereads), plan.start)
        return await self._fleet.confirmed(staying, timeout_s)

    async def _settle(self, config: Config, plan: Resize) -> None:
        """Let go what the configuration does not name any more."""
        await self._fleet.retire_workers(plan.leave, float(config.server.drain_timeout))
        wanted = {one.address for one in config.listener}
        await self._fleet.retire_listeners([address for address in self._listeners.addresses if address not in wanted])
        await self._fleet.retire_shards(self._listeners.spare)

    def _status(self) -> str:
        rows = [self._board.row(slot) for slot in self._fleet.pids()]
        table = self._fleet.table
        return status_line(
            Facts(
                serving=len(table.serving()),
                workers=len(table.active()),
                connections=sum(row.open_connections for row in rows),
                in_flight=sum(row.in_flight for row in rows),
                stuck=self._rescuer.silent(STUCK_MS / 1000),
                aside=sorted(self._rescuer.table.aside()),
                survivors=self._fleet.survivors,
                worst_queue=self._worst_queue(),
            )
        )

    def _worst_queue(self) -> str:
        """Where somebody has waited longest, in words."""
        readings = [
            (read(self._board, self._board.resource_index(name), False), name) for name in _resources(self._config)
        ]
        waiting = [(one.oldest_ns, one.queued, name) for one, name in readings if one.queued and one.oldest_ns]
        if not waiting:
            return ""
        oldest_ns, queued, name = min(waiting)
        return queue_words(name, queued, age_ms(oldest_ns) / 1000)


def _moves_accounts(old: Accounts | None, new: Accounts | None) -> bool:
    return (old.store if old is not None else None) != (new.store if new is not None else None)


def _kept(changes: Sequence[Change]) -> list[Change]:
    return [one for one in changes if one.persisted]


def _resources(config: Config) -> list[str]:
    """What has a block of its own on the board. Upstreams first: they always have a limit, routes seldom."""
    return [
        *(f"upstream/{name}" for name in config.upstream),
        *(f"target/{name}" for name in target_names(config)),
        *(f"route/{route.name}" for route in config.route),
    ]
