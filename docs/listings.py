"""Runs the listings of the documentation, and compares their output with the page.

    python docs/listings.py PAGE.md …     run the console listings of pages

A console listing is a session with one terminal or several. With several, each line starts
with the terminal's name:

    nc   | $ nc localhost 9999          `$ ` starts a program
    nc   | > good morning               `> ` is typed into it
    nc   | 127.0.0.1:50000: good morning      anything else is what it prints, in this order
    nc   | ^C                           the program is interrupted (^D: its input ends)

A line `…` stands for any lines, and `…` in a line for any text. If a listing starts no server but
uses port 9999, a server runs already. The terminal `browser` is the console of a page of the
server; it knows `new WebSocket(URL)`, `onmessage` and `send`. Ports are replaced by free ones.
Values that differ from run to run (ports and ids of clients, epochs, times) are compared by kind.
Where a listing has the same value twice, the run must have one value, too.
"""

from __future__ import annotations

import os
import queue
import re
import shlex
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from terminals import Browser, ListingError, Program, reserve, shell

ROOT = Path(__file__).resolve().parents[1]
#: Seconds to wait for one line, or for the start of a program.
PATIENCE = 20.0
#: Seconds to wait for output that the listing does not show.
MOMENT = 0.05
#: Ports that the documentation names, each replaced by a free one.
PORTS = ("9999", "9998", "8080", "8443")

_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>[\w{}-]*) ?(?P<rest>[^\n`]*)\n(?P<text>.*?)^ *```$", re.M | re.S)
_LABEL = re.compile(r"(?:([a-z][a-z-]*) *\| ?)?(.*)", re.DOTALL)
_SERVER = re.compile(r"\b(twistd|twist|longconn serve)\b.*")
# Programs that subscribe to a channel: the next line waits until the server has subscribed them.
_LISTENER = re.compile(
    r"^nc (?!.*-N)|^openssl s_client|^curl (.* )?-N |/(events|stream)\b|^longconn (chat|sub) .*:\d{4,5}"
)
#: Values that differ from run to run. Each value in the listing stands for one value of the run.
_VARIABLE = re.compile(
    r"(?P<peer>(?:127\.0\.0\.1|\[::1\]):\d{4,5})"
    r"|(?<=\"epoch\":\")(?P<epoch>[\w-]{11})(?=\")|(?<=id: )(?P<epoch2>[\w-]{11})(?=:\d)"
    r"|(?<=since=)(?P<epoch3>[\w-]{11})(?=:\d)"
    r"|(?<=\"client\":\")(?P<client>[\w-]{20})(?=\")|(?<=\"session\":\")(?P<session>[\w-]{24})(?=\")"
    r"|(?<=\"node\":\")(?P<node>[\w-]{11})(?=\")"
    r"|(?P<time>(?<=\"time\":)\d+(?:\.\d+)?|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4})"
)


@dataclass(frozen=True)
class Listing:
    """One fenced block of a page. `argument` is the text after the language."""

    page: Path
    line: int
    language: str
    argument: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def listings(page: Path) -> Iterator[Listing]:
    """The blocks of a page, in order."""
    text = page.read_text()
    for match in _FENCE.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        body = re.sub(f"^{match['indent']}", "", match["text"], flags=re.MULTILINE)
        yield Listing(page, line, match["language"], match["rest"].strip(), body)


def pages() -> list[Path]:
    """The pages of the documentation."""
    found = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    return sorted(each for each in found if "_build" not in each.parts)


def programs(listing: Listing) -> set[str]:
    """The programs that a console listing starts."""
    commands = [rest[2:] for _, rest in _steps(listing.text) if rest.startswith("$ ")]
    words = [re.split(r"\s*(?:\||&&|;)\s*", each) for each in commands]
    found = [shlex.split(part, comments=True) for line in words for part in line if part.strip()]
    return {next(word for word in each if not re.match(r"[A-Z_]+=", word)) for each in found}


def _steps(text: str) -> Iterator[tuple[str, str]]:
    """Lines as (terminal, rest); a command's line that ends in a backslash goes on in the next."""
    lines = iter(text.splitlines())
    for line in lines:
        match = _LABEL.fullmatch(line)
        assert match is not None
        label, rest = match[1] or "", match[2]
        while rest.startswith("$ ") and rest.endswith("\\"):
            more = _LABEL.fullmatch(next(lines))
            assert more is not None
            rest = rest[:-1] + more[2].strip()
        yield label, rest


class Session:
    """Runs one listing, line by line. `start` starts a command, as `shell` does."""

    def __init__(self, listing: Listing, folder: Path, start: Callable[..., Any] = shell) -> None:
        self._listing = listing
        self._start_process = start
        self._folder = folder
        self._reserved = {name: reserve() for name in PORTS}
        self._ports = {name: str(each.getsockname()[1]) for name, each in self._reserved.items()}
        self._terminals: dict[str, Program | Browser] = {}
        self._stopped: list[Program | Browser] = []
        self._server: Program | None = None
        # Terminals whose program ends by itself.
        self._brief: set[str] = set()
        # Values in the listing, and the values of this run.
        self._meanings: dict[str, str] = {}
        (folder / "docs" / "examples").mkdir(parents=True)
        for each in (ROOT / "docs" / "examples").glob("*.*"):
            (folder / "docs" / "examples" / each.name).write_text(self._ours(each.read_text()))
        # In a terminal curl shows no progress for output that it prints; here there is no terminal.
        (folder / ".curlrc").write_text("silent\nshow-error\n")
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("LONGCONN_", "PYTHON"))}
        self._environ = kept | {
            "PATH": path, "HOME": str(folder), "LC_ALL": "C.UTF-8", "TERM": "dumb", "PYTHONUNBUFFERED": "1",
            "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1",
            # A library's warning about the age of its protoc depends on versions, and is not shown.
            "PYTHONWARNINGS": "ignore::UserWarning:google.protobuf.runtime_version",
        }  # fmt: skip

    def run(self) -> None:
        """Run the listing. Raises ListingError where the output differs from it."""
        text = self._listing.text
        try:
            if not _SERVER.search(text) and "9999" in text and "docs/examples" not in text:
                self._serve("twistd -n --pidfile= longconn --port=127.0.0.1:9999")
            skipping: set[str] = set()
            for label, rest in _steps(text):
                self._step(label, rest, skipping)
            for label, terminal in self._terminals.items():
                if terminal is not self._server:
                    self._check_end(label, skipping, ends=label in self._brief)
        except ListingError as error:
            raise ListingError(f"{self._listing}: {error}{self._report()}") from None
        finally:
            for each in (*self._terminals.values(), *self._stopped):
                each.stop()
            if self._server is not None:
                self._server.stop()
            for each in self._reserved.values():
                each.close()

    def _report(self) -> str:
        server = self._server.seen if self._server else []
        parts = [("server", server), *((label or "terminal", each.seen) for label, each in self._terminals.items())]
        return "".join(f"\n--- {label}\n" + "\n".join(lines) for label, lines in parts)

    # Names in the listing, and in this run.

    def _ours(self, text: str) -> str:
        """A command of the listing as it is run."""
        for name, port in self._ports.items():
            text = re.sub(rf"\b{name}\b", port, text)
        for name, meaning in self._meanings.items():
            text = text.replace(name, meaning)
        return text

    def _theirs(self, text: str) -> str:
        for name, port in self._ports.items():
            text = re.sub(rf"\b{port}\b", name, text)
        return text

    def _serve(self, command: str) -> None:
        self._server = self._program(self._ours(command))
        self._wait(lambda: any("listening on" in each for each in self._server.seen), "the server to listen")  # type: ignore[union-attr]

    def _program(self, command: str) -> Program:
        return Program(self._start_process(command, self._folder, self._environ))

    def _wait(self, done: Callable[[], bool], what: str) -> None:
        end = monotonic() + PATIENCE
        pause = threading.Event()
        while not done():
            if monotonic() > end:
                raise ListingError(f"waited in vain for {what}")
            pause.wait(0.01)

    # Steps.

    def _step(self, label: str, rest: str, skipping: set[str]) -> None:
        if rest.startswith("$ "):
            if label in self._terminals:
                self._check_end(label, skipping, ends=True)
                self._stopped.append(self._terminals.pop(label))
            self._start(label, self._ours(rest[2:]))
        elif rest.startswith("> ") or rest == ">":
            if label == "browser" and label not in self._terminals:
                self._terminals[label] = Browser(self._ours)
            came = self._came()
            self._terminals[label].type(self._ours(rest[2:]))
            if label == "browser" and "/ws" in rest:
                self._wait(lambda: self._came() > came, "the server to know the browser")
        elif rest == "^C":
            self._terminals[label].interrupt()
            self._brief.add(label)
        elif rest == "^D":
            self._terminals[label].end_input()
            self._brief.add(label)
        elif rest == "…":
            skipping.add(label)
        else:
            self._expect(label, rest, skipping)

    def _start(self, label: str, command: str) -> None:
        came = self._came()
        program = self._terminals[label] = self._program(command)
        self._brief.discard(label)
        if _SERVER.search(command) and not re.search(r"--(help|version)", command):
            self._wait(lambda: any("listening on" in each for each in program.seen), "the server to listen")
            self._server, first = program, self._server
            assert first is None, "one server in a listing"
        elif _LISTENER.search(command):
            if self._server is not None:  # otherwise the next line of the listing shows that the program runs
                self._wait(lambda: self._came() > came, f"the server to know of `{command}`")
        elif not re.match(r"(?:[A-Z_]+=\S+ )*(?:python|node)", command):
            self._brief.add(label)
            self._wait(program.ended, f"`{command}` to end")

    def _came(self) -> int:
        seen = [line for each in (self._server, *self._terminals.values()) if each is not None for line in each.seen]
        return sum(" came" in line and "client_connected" in line for line in seen)

    def _next(self, label: str, wanted: str) -> str | None:
        try:
            return self._terminals[label].lines.get(timeout=PATIENCE)
        except queue.Empty:
            raise ListingError(f"waited in vain for {wanted!r}") from None

    def _expect(self, label: str, wanted: str, skipping: set[str]) -> None:
        while True:
            line = self._next(label, wanted)
            if line is None:
                raise ListingError(f"ended without {wanted!r}")
            found = self._theirs(line)
            if self._same(wanted, found):
                skipping.discard(label)
                return
            if label not in skipping:
                raise ListingError(f"shown {wanted!r}, found {found!r}")

    def _same(self, wanted: str, found: str) -> bool:
        names: list[tuple[str, str]] = []

        def kind(match: re.Match[str]) -> str:
            return f"<{(match.lastgroup or '').rstrip('23')}>"

        parts = (re.escape(each) for each in _VARIABLE.sub(kind, wanted).split("…"))
        if not re.fullmatch(".*".join(parts), _VARIABLE.sub(kind, found)):
            return False
        if "…" not in wanted:
            pairs = zip(_VARIABLE.finditer(wanted), _VARIABLE.finditer(found), strict=True)
            names = [(one[0], other[0]) for one, other in pairs if one.lastgroup != "time"]
        ours = {f"127.0.0.1:{each}" for each in PORTS}
        for name, meaning in names:
            others = [key for key, value in self._meanings.items() if value == meaning and key != name]
            if name not in ours and (others or self._meanings.setdefault(name, meaning) != meaning):
                raise ListingError(f"{name} is {self._meanings.get(name)}, and {meaning} is {others}, in {found!r}")
        return True

    def _check_end(self, label: str, skipping: set[str], *, ends: bool = False) -> None:
        """Check that no output is missing in the listing. A program that `ends` is read to its end."""
        terminal = self._terminals[label]
        lines = []
        while True:
            try:
                line = terminal.lines.get(timeout=PATIENCE if ends else MOMENT)
            except queue.Empty:
                if not ends:
                    break
                raise ListingError(f"in terminal {label!r} a program still runs") from None
            if line is None:
                break
            lines.append(line)
        if any(lines) and label not in skipping:
            raise ListingError(f"not shown: {lines!r}")


def missing(listing: Listing) -> set[str]:
    """Programs that a listing needs and this machine lacks."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return {each for each in programs(listing) if shutil.which(each, path=path) is None}


def run(listing: Listing, start: Callable[..., Any] = shell) -> None:
    """Run a console listing in a folder of its own. Raises ListingError."""
    with tempfile.TemporaryDirectory() as folder:
        Session(listing, Path(folder), start).run()


if __name__ == "__main__":
    for _name in sys.argv[1:]:
        for _each in listings(Path(_name).resolve()):
            if _each.language == "console":
                run(_each)
                print(f"{_each}: as shown")
