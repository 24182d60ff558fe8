"""`longconn top [URL]`: the clients and channels of a server, live in a terminal."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import time
from argparse import Namespace
from dataclasses import dataclass, field
from typing import Any

from prompt_toolkit import Application
from prompt_toolkit.key_binding import KeyBindings
from prompt_toolkit.layout import FormattedTextControl, Layout, Window
from prompt_toolkit.utils import get_cwidth
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from longconn.clients import ClientError
from longconn.commands.operating import ServerAPIClient, add_options, short, span, table
from longconn.commands.parser import Parser
from longconn.commands.running import Console, repeat
from longconn.commands.terminal_signals import TerminalSignals
from longconn.wire.chat import safe

#: By key: what is sorted, by which order, and how the foot names it.
KEYS = {
    "s": ("clients", "queued", "slowest"),
    "n": ("clients", "newest", "newest"),
    "o": ("clients", "oldest", "oldest"),
    "c": ("clients", "channels", "most channels"),
    "m": ("channels", "clients", "most clients"),
    "p": ("channels", "publications", "most publications"),
}
#: Clients and channels that are asked for.
_ASKED = 200


def parser() -> Parser:
    """The command line."""
    keys = ", ".join(f"{key}: {text}" for key, (_, _, text) in KEYS.items())
    found = Parser(
        "top",
        "Show a server's numbers, its slowest clients and its largest channels, live, by the server API. "
        f"Keys: {keys}; q ends. Where the output is no terminal, it is printed once.",
    )
    found.add_argument("url", metavar="URL", nargs="?", help="the port of operators [localhost:9999]")
    found.add_every(2.0, "seconds from one look to the next")
    found.add_times(0, "looks with --json")
    add_options(found)
    found.add_argument("--json", action="store_true", help="print a JSON object for each look, instead of a screen")
    return found


@dataclass
class Look:
    """What one look at the server brought, and when: `at` in seconds of a steady clock."""

    at: float
    node: dict[str, Any]
    recent: dict[str, Any]
    clients: dict[str, Any]
    channels: dict[str, Any]

    def counts(self) -> dict[str, int]:
        """The publications of each channel."""
        return {each["name"]: each["num_publications"] for each in self.channels["channels"]}


@dataclass
class Orders:
    """In which orders clients and channels are shown."""

    clients: str = "queued"
    channels: str = "clients"
    names: dict[str, str] = field(default_factory=lambda: {"clients": "slowest", "channels": "most clients"})

    def press(self, key: str) -> None:
        """Take another order, by one of `KEYS`."""
        what, order, name = KEYS[key]
        setattr(self, what, order)
        self.names[what] = name


async def main(console: Console, arguments: Namespace) -> int:
    """Show until a key ends it."""
    api = ServerAPIClient(console, arguments.url, arguments)
    try:
        if arguments.json:
            await repeat(console.reactor, arguments.times, arguments.every, lambda: _print_json(console, api))
        elif not console.out.is_terminal:
            await console.out.write("".join(f"{each}\n" for each in lines(await look(api, Orders()), None, 120, None)))
        else:
            await _LiveView(console, api, arguments.every).run()
    finally:
        await api.close()
    return 0


async def look(api: ServerAPIClient, orders: Orders) -> Look:
    """Ask the server. Raises ClientError."""
    found = await api.call_all(
        {"info": {}},
        {"recent": {}},
        {"clients": {"order": orders.clients, "limit": _ASKED}},
        {"channels": {"order": orders.channels, "limit": _ASKED}},
    )
    info, recent, clients, channels = found
    if info is None or clients is None or channels is None:
        raise ClientError("the server refused to tell; its log says why")
    return Look(time.monotonic(), info["nodes"][0], recent or {}, clients, channels)


async def _print_json(console: Console, api: ServerAPIClient) -> None:
    found = await look(api, Orders())
    last = {name: values[-1] for name, values in found.recent.items() if isinstance(values, list) and values}
    value = {"node": found.node, "now": last, **found.clients, **found.channels}
    await console.out.write(json.dumps(value, ensure_ascii=False) + "\n")


def lines(found: Look, before: Look | None, width: int, height: int | None, orders: Orders | None = None) -> list[str]:
    """The screen: `height` lines (None: all) of `width` columns."""
    names = (orders or Orders()).names
    node, recent = found.node, found.recent
    head = f"{node['name']} {node['version']}, up {span(node['uptime'])}: {short(node['num_clients'])} clients"
    head += f" of {short(node['num_users'])} users, {short(node['num_channels'])} channels"
    if recent.get("time"):
        rates = f"{short(recent['publications'][-1])} publications/s, {short(recent['deliveries'][-1])} deliveries/s"
        head += f"\n{rates}, {short(recent['queued'][-1])} B waiting, lag {recent['lag'][-1] * 1000:.1f} ms"
    top = head.split("\n")
    clients = [("NAME", "USER", "ADDRESS", "BY", "HERE", "WAITING", "CHANNELS")] + [
        (
            safe(each["name"]), safe(each["user"]), each["address"], each["protocol"], span(each["age"]),
            short(each["queued"]), safe(", ".join(each["channels"])),
        )
        for each in found.clients["clients"]
    ]  # fmt: skip
    counts = before.counts() if before is not None else {}
    seconds = found.at - before.at if before is not None else 0.0
    channels = [("CHANNEL", "CLIENTS", "PUBLICATIONS/S")]
    for each in found.channels["channels"]:
        known = counts.get(each["name"])
        rate = "" if known is None or seconds <= 0 else short(max(0.0, each["num_publications"] - known) / seconds)
        channels.append((safe(each["name"]), short(each["num_clients"]), rate))
    room = None if height is None else max(2, height - len(top) - 4)
    # Channels get a third, and what clients leave.
    rows = len(clients) if room is None else min(len(clients), max(2, room - min(len(channels), room // 3)))
    others = len(channels) if room is None else max(1, room - rows)
    shown = [
        *top, "",
        *table(clients[:rows], frozenset((4, 5))), "",
        *table(channels[:others], frozenset((1, 2))),
    ]  # fmt: skip
    if height is not None:
        shown = shown[: height - 1]
        shown += [""] * (height - 1 - len(shown))
        shown.append(f"clients: {names['clients']}; channels: {names['channels']}; keys {' '.join(KEYS)}, q ends")
    return [_cut(each, width) for each in shown]


def _cut(text: str, width: int) -> str:
    if get_cwidth(text) <= width:
        return text
    while get_cwidth(text) > width - 1:
        text = text[:-1]
    return f"{text}…"


class _LiveView:
    """A full screen of prompt_toolkit, on the event loop of the asyncio reactor."""

    def __init__(self, console: Console, api: ServerAPIClient, every: float) -> None:
        self._reactor = console.reactor
        self._api = api
        self._every = every
        self._orders = Orders()
        self._found: Look | None = None
        self._before: Look | None = None
        self._problem = ""
        keys = KeyBindings()
        for each in KEYS:
            keys.add(each)(lambda event, key=each: self._sort(key))
        for each in ("q", "c-c", "escape"):
            keys.add(each, eager=True)(lambda event: event.app.exit())
        keys.add("c-z")(lambda event: os.kill(0, signal.SIGTSTP))
        window = Window(FormattedTextControl(self._text), wrap_lines=False)
        self._app: Application[None] = Application(Layout(window), key_bindings=keys, full_screen=True)
        self._signals = TerminalSignals(console.reactor, self._app)

    async def run(self) -> None:
        """Show until a key ends it."""
        looking = Deferred.fromCoroutine(self._look_again())
        looking.addErrback(lambda failure: None)
        self._signals.install()
        try:
            await Deferred.fromFuture(asyncio.ensure_future(self._app.run_async(handle_sigint=False)))
        finally:
            self._signals.remove()
            looking.cancel()

    async def _look_again(self) -> None:
        while True:
            await self._look()
            await deferLater(self._reactor, self._every)

    async def _look(self) -> None:
        try:
            found = await look(self._api, self._orders)
        except ClientError as error:
            self._problem = safe(str(error))
        else:
            self._problem = ""
            self._before, self._found = self._found, found
        self._app.invalidate()

    def _sort(self, key: str) -> None:
        self._orders.press(key)
        Deferred.fromCoroutine(self._look()).addErrback(lambda failure: None)

    def _text(self) -> str:
        size = shutil.get_terminal_size()
        if self._found is None:
            return self._problem or "asking the server …"
        shown = lines(self._found, self._before, size.columns, size.lines, self._orders)
        if self._problem:
            shown[0] = _cut(f"{self._problem}; trying again", size.columns)
        return "\n".join(shown)
