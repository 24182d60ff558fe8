"""The pictures of docs/images: `python docs/pictures.py` makes them anew, with Chromium and tmux.

A real server, a browser with the chat page, and `longconn chat` in a tmux of its own have the same conversation.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from html import escape
from pathlib import Path
from urllib.request import Request, urlopen

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.live.devtools import Page, browser  # noqa: E402

IMAGES = ROOT / "docs" / "images"
LONGCONN = Path(sys.executable).parent / "longconn"
#: Columns and rows of the terminal; pixels of a cell in the picture.
COLUMNS, ROWS = 66, 12
CELL, LINE = 8.43, 20
#: Seconds for a line to be everywhere, and for one thing to happen.
PAUSE, PATIENCE = 0.4, 30.0
#: The colours of SGR 30 to 37 and 90 to 97, on dark paper.
PALETTE = ["#9ba5b7", "#ff8f8f", "#7fd39a", "#e5c07b", "#8fb0ff", "#d7a3ff", "#7fd6de", "#e7eaf1"]


class Terminal:
    """`longconn chat` in a tmux server of its own, on a socket in `folder`."""

    def __init__(self, folder: str, *command: str) -> None:
        self._tmux = ["tmux", "-f", "/dev/null", "-S", f"{folder}/tmux"]
        size = ["-x", str(COLUMNS), "-y", str(ROWS)]
        environ = {**os.environ, "TERM": "xterm-256color", "LANG": "C.UTF-8"}
        subprocess.run([*self._tmux, "new-session", "-d", *size, *command], check=True, timeout=PATIENCE, env=environ)
        self._run("set", "-g", "status", "off")

    def _run(self, *command: str) -> str:
        done = subprocess.run([*self._tmux, *command], check=True, timeout=PATIENCE, capture_output=True, text=True)
        return done.stdout

    def type(self, text: str) -> None:
        self._run("send-keys", "-l", text)

    def enter(self, text: str) -> None:
        self.type(text)
        self._run("send-keys", "Enter")

    def until(self, text: str) -> None:
        end = time.monotonic() + PATIENCE
        while text not in self._run("capture-pane", "-p"):
            if time.monotonic() > end:
                raise TimeoutError(f"the terminal does not show {text!r}: {self._run('capture-pane', '-p')}")
            time.sleep(0.1)

    def captured(self) -> list[str]:
        """The rows of the screen, with their escape sequences."""
        return self._run("capture-pane", "-p", "-e").split("\n")[:ROWS]

    def end(self) -> None:
        self._run("kill-server")


def drawn(rows: list[str], title: str) -> str:
    """An SVG of rows with escape sequences of ECMA-48."""
    width, height = round(COLUMNS * CELL + 32), ROWS * LINE + 56
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
        ' role="img">'
        f"<title>{escape(title)}</title>"
        f'<rect width="{width}" height="{height}" rx="8" fill="#14171f"/>'
        '<circle cx="20" cy="18" r="5" fill="#ff8f8f"/><circle cx="38" cy="18" r="5" fill="#e5c07b"/>'
        '<circle cx="56" cy="18" r="5" fill="#7fd39a"/>'
        "<g font-family=\"ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace\""
        ' font-size="14" fill="#e7eaf1" xml:space="preserve">'
    ]
    for number, row in enumerate(rows):
        column, style = 0, {}
        top = 40 + number * LINE
        for part in re.split(r"(\x1b\[[0-9;]*m)", row.replace("\x0f", "").replace("\x0e", "")):
            if part.startswith("\x1b"):
                style = styled(style, [int(each or 0) for each in part[2:-1].split(";")])
            elif part:
                left, long = 16 + column * CELL, len(part) * CELL
                ink, paper = style.get("ink", "#e7eaf1"), style.get("paper")
                if "reverse" in style:
                    ink, paper = paper or "#14171f", ink
                if paper:
                    out.append(f'<rect x="{left:.1f}" y="{top}" width="{long:.1f}" height="{LINE}" fill="{paper}"/>')
                if part.strip():
                    bold = ' font-weight="700"' if "bold" in style else ""
                    place = f'x="{left:.1f}" y="{top + 15}" textLength="{long:.1f}"'
                    out.append(f'<text {place} fill="{ink}"{bold}>{escape(part)}</text>')
                column += len(part)
    return "\n".join([*out, "</g></svg>", ""])


def styled(style: dict[str, str], codes: list[int]) -> dict[str, str]:
    """`style` after one sequence of SGR."""
    style = dict(style)
    while codes:
        code = codes.pop(0)
        if code == 0:
            style = {}
        elif code == 1:
            style["bold"] = ""
        elif code == 2:
            style["ink"] = "#9ba5b7"
        elif code == 7:
            style["reverse"] = ""
        elif 30 <= code <= 37 or 90 <= code <= 97:
            style["ink"] = PALETTE[code % 10]
        elif 40 <= code <= 47 or 100 <= code <= 107:
            style["paper"] = PALETTE[code % 10]
        elif code in (38, 48) and codes[:1] == [5]:
            style["ink" if code == 38 else "paper"] = indexed(codes[1])
            codes = codes[2:]
    return style


def indexed(number: int) -> str:
    """A colour of xterm's 256."""
    if number < 16:
        return PALETTE[number % 8]
    if number >= 232:
        return f"#{8 + (number - 232) * 10:02x}" + f"{8 + (number - 232) * 10:02x}" * 2
    levels = [0, 95, 135, 175, 215, 255]
    number -= 16
    return "#" + "".join(f"{levels[each]:02x}" for each in (number // 36, number // 6 % 6, number % 6))


def say(page: Page, text: str) -> None:
    page.evaluate("document.querySelector('#text').focus()")
    page.type(text)
    page.press("Enter")
    time.sleep(PAUSE)


def converse(url: str, folder: str) -> None:
    terminal = Terminal(folder, str(LONGCONN), "chat", "-s", url, "--name", "ann")
    try:
        terminal.until("connected")
        page = browser().page(url, width=900, height=560)
        page.until("document.querySelector('#naming')?.open")
        page.type("mia")
        page.press("Enter")
        terminal.until("mia")
        say(page, "Morning! The release goes out at ten.")
        terminal.enter("good morning, mia")
        time.sleep(PAUSE)
        urlopen(Request(f"{url}/channels/lobby?name=cron", b"backup done: 41 GB in 6 min"), timeout=PATIENCE).close()
        time.sleep(PAUSE)
        say(page, "Thanks, cron. Can you look at the sensors?")
        reading = json.dumps({"sensor": "roof", "celsius": 21.5}).encode()
        head = {"Content-Type": "application/json"}
        urlopen(Request(f"{url}/channels/lobby?name=sensor", reading, head), timeout=PATIENCE).close()
        time.sleep(PAUSE)
        terminal.enter("21.5 degrees on the roof, all fine")
        time.sleep(PAUSE)
        terminal.type("shall I st")
        terminal.until("shall I st")
        time.sleep(1)
        for theme in ("light", "dark"):
            page.dark(theme == "dark")
            time.sleep(PAUSE)
            (IMAGES / f"page-{theme}.png").write_bytes(page.picture())
        picture = drawn(terminal.captured(), "longconn chat in a terminal, in the same channel as the page")
        (IMAGES / "terminal.svg").write_text(picture)
    finally:
        terminal.end()


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        server = subprocess.Popen(
            [LONGCONN, "serve", "--port=127.0.0.1:0"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert server.stdout is not None
        try:
            found = next(filter(None, (re.search(r"listening on (127\S+?:\d+)", line) for line in server.stdout)))
            converse(f"http://{found[1]}", folder)
        finally:
            server.terminate()
            server.wait(PATIENCE)


if __name__ == "__main__":
    main()
