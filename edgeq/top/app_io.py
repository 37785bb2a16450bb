"""The terminal of `edgeq top`: keys, size, colours, and a thread that asks the gateway.

textual does what is hard with terminals (modes that are restored whatever happens, resizing, input); what is shown is
`screen.py`'s. Chosen over rich.live, which has no keys (import 38 ms and +4 MiB, against 170 ms and +21 MiB; measured
2026-11-26 with textual 8.2.8, rich 15.0, both MIT and typed), and over curses, whose widgets would be ours to write.

The thread is no part of the event loop's pool, which would be waited for at the end: a gateway that hangs must not keep
`q` from working.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import ClassVar, Final

from rich.text import Text
from textual import on
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.message import Message
from textual.screen import ModalScreen
from textual.widget import Widget
from textual.widgets import Input, Static

from edgeq.admin.render import Record
from edgeq.errors import EdgeqError
from edgeq.top import model
from edgeq.top.gateway_io import Gateway, Unreachable
from edgeq.top.model import History, Snapshot, View
from edgeq.top.screen import ASCII, BLOCKS, Line, connections_page, main_screen, queue_page

_STYLES: Final = {"plain": "", "head": "bold", "faint": "dim", "good": "green", "warn": "yellow", "alarm": "bold red"}
_PAGE_ROWS: Final = 10
_SILENT_S: Final = 2.0
"""Without an answer for so long, what is shown is old, and said to be so before a look has timed out."""
EXIT_TERMINATED: Final = 128 + signal.SIGTERM
HELP: Final = """\
Queues by fill, upstreams in trouble first, refusals by rate, workers by lag.

  q, Ctrl-C     quit
  up, down      select a queue (also k, j, page up, page down, home, end);
                home: the first one, whichever that is from then on
  s             next order: fill, depth, oldest, wait, arrivals, refused, name
  /             show only names with a text; empty: all
  enter         open the selected queue
  e             have the gateway explain it
  c             connections of clients: what each does or waits for
  space         hold the screen still, and go on
  ? or h        this page
  Esc           back

Red: from 90 % of a limit on, whatever refuses, a breaker that is open, a worker that is stuck.
Yellow: from 50 % on, who waits for an upstream, a loop that lags for 100 ms.
The trend of a queue is how full it was at the last looks, from its lowest mark (nothing) to the
highest (full). Rates are of the last ten seconds. A dash is what cannot be known.
"""


class Looked(Message):
    """The gateway has answered."""

    def __init__(self, snapshot: Snapshot) -> None:
        super().__init__()
        self.snapshot = snapshot


class Silent(Message):
    """It has not."""

    def __init__(self, error: EdgeqError) -> None:
        super().__init__()
        self.error = error


class Answered(Message):
    """The text of a page has come."""

    def __init__(self, page: Page, text: str) -> None:
        super().__init__()
        self.page = page
        self.text = text


class Page(ModalScreen[None]):
    """A text over the whole screen."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,enter,question_mark,h", "dismiss"),
        Binding("e", "app.explain"),
    ]

    def __init__(self, text: str, queue: str = "") -> None:
        super().__init__()
        self.queue = queue
        """The key of the queue that it is about."""
        self._text = Static(text, markup=False)

    def compose(self) -> ComposeResult:
        yield VerticalScroll(self._text)
        yield Static("Esc back  e explain  q back" if self.queue else "Esc back", classes="keys")

    def show(self, text: str) -> None:
        """Replace the text."""
        self._text.update(text)


class Picture(Widget, can_focus=True):
    """The lines of the main screen."""

    def render(self) -> Text:
        app = self.app
        assert isinstance(app, TopApp)
        return Text("\n", no_wrap=True).join(map(_styled, app.lines(self.size.width, self.size.height)))


class TopApp(App[None]):
    """One live screen. `told`: the first look, with which the gateway is known to be there."""

    ENABLE_COMMAND_PALETTE = False
    CSS = """
    Screen { background: ansi_default; color: ansi_default; }
    Picture { width: 100%; height: 1fr; }
    Input { dock: bottom; height: 1; border: none; padding: 0; display: none; background: ansi_default; }
    Input:focus { border: none; }
    Page { background: ansi_default; }
    VerticalScroll { height: 1fr; scrollbar-size-vertical: 1; }
    .keys { height: 1; text-style: dim; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+c", "quit", priority=True),
        Binding("q", "quit"),
        Binding("question_mark,h", "help"),
        Binding("s", "sort"),
        Binding("slash", "filter"),
        Binding("enter", "open"),
        Binding("e", "explain"),
        Binding("c", "connections"),
        Binding("space", "hold"),
        Binding("up,k", "move(-1)"),
        Binding("down,j", "move(1)"),
        Binding("pageup", f"move(-{_PAGE_ROWS})"),
        Binding("pagedown", f"move({_PAGE_ROWS})"),
        Binding("home", "move(-1000000)"),
        Binding("end", "move(1000000)"),
        Binding("escape", "unfilter"),
    ]

    def __init__(self, gateway: Gateway, told: Snapshot, view: View, interval_s: float) -> None:
        super().__init__(ansi_color=True)  # the terminal's own colours; none at all with NO_COLOR
        self._gateway = gateway
        self._told = told
        self._view = view
        self._interval_s = interval_s
        self._history = History()
        self._held: History | None = None
        """What it was when the screen was held; None: it goes on."""
        self._answered_s = time.monotonic()
        self._reason = ""
        """Why the last look had no answer."""
        self._ended = threading.Event()
        encoding = sys.stdout.encoding or "ascii"
        self._marks = BLOCKS if encoding.lower().replace("-", "").startswith("utf") else ASCII

    def compose(self) -> ComposeResult:
        yield Picture()
        yield Input(placeholder="only names with ...", select_on_focus=False)

    def on_mount(self) -> None:
        """Begin to ask."""
        self._history.note(self._told.queues)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self.exit, None, EXIT_TERMINATED)
        self.query_one(Picture).focus()
        self.set_interval(_SILENT_S / 2, self._redraw_if_silent)
        threading.Thread(target=self._ask, daemon=True).start()

    def on_unmount(self) -> None:
        """The thread ends by itself."""
        self._ended.set()

    def lines(self, width: int, height: int) -> list[Line]:
        """What the main screen shows."""
        history = self._held or self._history
        return main_screen(self._told, history, self._view, width, height, self._trouble, self._marks)

    @property
    def _trouble(self) -> str:
        """Why this is not how it is now; empty if it is. Without the path, which would leave no room."""
        if self._held is not None:
            return "held: space goes on"
        silent_s = time.monotonic() - self._answered_s
        if not self._reason and silent_s < self._interval_s + _SILENT_S:
            return ""
        return f"no answer for {silent_s:.0f} s" + (f": {self._reason}" if self._reason else "")

    def _redraw_if_silent(self) -> None:
        if self._trouble and self._held is None:
            self._redraw()

    def _ask(self) -> None:
        while not self._ended.wait(self._interval_s):
            try:
                answer: Message = Looked(self._gateway.look())
            except EdgeqError as error:
                answer = Silent(error)
            self._post(answer)

    def _post(self, message: Message) -> None:
        """From a thread of ours, which may outlive the loop by a moment."""
        with contextlib.suppress(RuntimeError):
            self.post_message(message)

    @on(Looked)
    def _on_looked(self, message: Looked) -> None:
        self._answered_s = time.monotonic()
        self._reason = ""
        self._history.note(message.snapshot.queues)
        if self._held is None:
            self._told = message.snapshot
            self._redraw()

    @on(Silent)
    def _on_silent(self, message: Silent) -> None:
        error = message.error
        self._reason = error.reason if isinstance(error, Unreachable) else str(error)
        self._history.gap()
        if self._held is None:
            self._redraw()

    @on(Answered)
    def _on_answered(self, message: Answered) -> None:
        message.page.show(message.text)

    def _redraw(self) -> None:
        for picture in self.screen_stack[0].query(Picture):
            picture.refresh()
        page = self.screen
        if isinstance(page, Page) and page.queue:
            queue = next((one for one in self._told.queues if model.key_of(one) == page.queue), None)
            if queue is not None:
                page.show(self._page_of(queue))

    def _page_of(self, queue: Record) -> str:
        text = queue_page(queue, self._told, self._held or self._history, self.size.width - 1, self._marks)
        return f"{self._trouble}\n\n{text}" if self._trouble else text

    def _queues(self) -> list[Record]:
        return model.arranged(self._told.queues, self._view)

    def _selected(self) -> Record | None:
        queues = self._queues()
        return queues[self._view.index(queues)] if queues else None

    # Keys.

    async def action_quit(self) -> None:
        """Leave."""
        self.exit(None, 0)

    def action_help(self) -> None:
        """The page of keys."""
        self.push_screen(Page(HELP))

    def action_sort(self) -> None:
        """The next order."""
        self._view.next_sort()
        self._redraw()

    def action_hold(self) -> None:
        """Show nothing new for a while."""
        self._held = copy.deepcopy(self._history) if self._held is None else None
        self._redraw()

    def action_move(self, by: int) -> None:
        """Select another queue."""
        self._view.move(self._queues(), by)
        self._redraw()

    def action_open(self) -> None:
        """All of the selected queue."""
        queue = self._selected()
        if queue is not None:
            self.push_screen(Page(self._page_of(queue), model.key_of(queue)))

    def action_explain(self) -> None:
        """Ask the gateway about the selected queue."""
        queue = self._selected()
        if queue is not None:
            name = str(queue["queue"])
            self._open_answer(name, lambda: self._gateway.explain(name))

    def action_connections(self) -> None:
        """Who is connected, and waits for what."""
        width = self.size.width - 1
        self._open_answer("connections", lambda: connections_page(self._gateway.connections(), width))

    def _open_answer(self, title: str, ask: Callable[[], str]) -> None:
        """A page with what the gateway says, which may take a while."""
        page = Page(f"{title}\n\nasking ...")
        self.push_screen(page)
        threading.Thread(target=self._fill, args=(page, title, ask), daemon=True).start()

    def _fill(self, page: Page, title: str, ask: Callable[[], str]) -> None:
        try:
            text = ask()
        except EdgeqError as error:
            text = str(error)
        self._post(Answered(page, f"{title}\n\n{text}"))

    def action_filter(self) -> None:
        """Type what names must have."""
        line = self.query_one(Input)
        line.display = True
        line.value = self._view.match
        self.screen.set_focus(line)  # now: what is typed next belongs there

    def action_unfilter(self) -> None:
        """Show all again."""
        self._view.match = ""
        self._end_filter()

    @on(Input.Changed)
    def _on_typed(self, message: Input.Changed) -> None:
        if message.input.has_focus:
            self._view.match = message.value
            self._redraw()

    @on(Input.Submitted)
    def _end_filter(self) -> None:
        self.screen.set_focus(self.query_one(Picture))
        self.query_one(Input).display = False
        self._redraw()


def _styled(line: Line) -> Text:
    style = _STYLES[line.look]
    return Text(line.text, f"{style} reverse".strip() if line.selected else style)
