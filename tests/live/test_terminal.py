"""The chat in a terminal that is driven: tmux types, and shows what a person would see."""

import os
import pty
import re
import select
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.live.programs import PATIENCE, ROOT, Server

_PROGRAM = "import sys, longconn.cli; sys.exit(longconn.cli.main())"
#: Seconds between two looks at the screen.
_LOOK = 0.05
#: The time at the start of a line, or the room for it.
_TIME = re.compile(r"^(?:\d\d:\d\d |      (?=\S))")
#: For `screen`: also what has scrolled away.
_ALL = ("-S", "-")


def _environment(more: dict[str, str]) -> dict[str, str]:
    """The environment of a terminal: that of the tests, without what would change the chat."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("LONGCONN_", "TMUX", "NO_COLOR"))}
    return kept | {"PYTHONPATH": str(ROOT), "LC_ALL": "C.UTF-8", "TERM": "xterm-256color"} | more


class Terminal:
    """A terminal with a program in it, of a tmux server of its own."""

    def __init__(self, folder: Path, command: str, **environ: str) -> None:
        self._tmux = ["tmux", "-S", str(folder / "tmux"), "-f", "/dev/null"]
        self._environ = _environment(environ)
        shown = f"{command}; echo ended with $?; exec cat"
        self._run("-u", "new-session", "-d", "-x", "90", "-y", "24", "-s", "chat", shown)

    def _run(self, *arguments: str) -> str:
        done = subprocess.run(
            [*self._tmux, *arguments], env=self._environ, capture_output=True, text=True, check=True, timeout=PATIENCE
        )
        return done.stdout

    def stop(self) -> None:
        self._run("kill-server")

    def type(self, text: str) -> None:
        self._run("send-keys", "-t", "chat", "-l", text)

    def press(self, *keys: str) -> None:
        self._run("send-keys", "-t", "chat", *keys)

    def paste(self, text: str) -> None:
        """Paste, as a terminal does that a program has asked for bracketed pastes."""
        self._run("set-buffer", text)
        self._run("paste-buffer", "-p", "-t", "chat")

    def resize(self, columns: int, rows: int) -> None:
        self._run("resize-window", "-t", "chat", "-x", str(columns), "-y", str(rows))

    def shell(self) -> str:
        """The process of its shell."""
        return self._run("display-message", "-p", "-t", "chat", "#{pane_pid}").strip()

    def screen(self, *options: str) -> list[str]:
        """What is shown, without empty lines, and without the times at the start of lines."""
        shown = self._run("capture-pane", "-p", *options, "-t", "chat")
        return [_TIME.sub("", each.rstrip()) for each in shown.split("\n") if each.strip()]

    def rows(self) -> list[str]:
        """What is shown, up to the last row that is not empty."""
        return self._run("capture-pane", "-p", "-t", "chat").rstrip().split("\n")

    def until(self, condition: Callable[[list[str]], bool], *options: str) -> list[str]:
        """The screen, once it is as wanted."""
        end = time.monotonic() + PATIENCE
        while True:
            shown = self.screen(*options)
            if shown and condition(shown):  # it is empty for a moment when the editor is drawn anew
                return shown
            if time.monotonic() > end:
                raise AssertionError("the screen is\n" + "\n".join(shown))
            time.sleep(_LOOK)

    def shows(self, *lines: str) -> list[str]:
        """The screen, once these are its lines, one after the other, the last above the state's."""
        wanted = list(lines)
        return self.until(lambda shown: shown[-1 - len(wanted) : -1] == wanted)


class SlowTerminal:
    """A terminal that says where the cursor is only when it is told to."""

    def __init__(self, command: list[str], **environ: str) -> None:
        self._master, slave = pty.openpty()
        self._program = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=_environment(environ),
            start_new_session=True,
        )
        os.close(slave)
        self.shown = b""

    def stop(self) -> None:
        self._program.kill()
        self._program.wait()
        os.close(self._master)

    def type(self, data: bytes) -> None:
        os.write(self._master, data)

    def answer(self, row: int) -> None:
        self.type(b"\x1b[%d;1R" % row)

    def until(self, *parts: bytes) -> None:
        """Read until all of these were written since the last call."""
        self.shown = b""
        end = time.monotonic() + PATIENCE
        while not all(part in self.shown for part in parts):
            if not select.select([self._master], [], [], max(0, end - time.monotonic()))[0]:
                raise AssertionError(f"written was {self.shown!r}")
            self.shown += os.read(self._master, 65536)


class TerminalTests(SynchronousTestCase):
    def setUp(self) -> None:
        if shutil.which("tmux") is None:
            raise SkipTest("needs tmux")
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.server = Server()
        self.addCleanup(self.server.clean_up)

    def chat(self, *arguments: str, **environ: str) -> Terminal:
        command = shlex.join([sys.executable, "-c", _PROGRAM, "chat", "--name", "mia", *arguments])
        terminal = Terminal(self.folder, command, LONGCONN_URL=f":{self.server.port}", **environ)
        self.addCleanup(terminal.stop)
        terminal.until(lambda shown: bool(shown) and shown[-1].strip() == "lobby · mia · 1 here · connected")
        return terminal

    def say(self, *values: str) -> None:
        for each in values:
            self.server.post("/channels/lobby?name=ann", each)

    def test_a_conversation(self) -> None:
        terminal = self.chat()
        # Half a line; three are heard; the other half.
        terminal.type("half a li")
        terminal.shows("> half a li")
        self.say("one", "two", "th\x1b[31mree")
        heard = ["ann: one", "ann: two", "ann: th\ufffd[31mree"]
        terminal.shows(*heard, "> half a li")
        terminal.type("ne")
        terminal.press("Enter")
        terminal.shows(*heard, "mia: half a line", ">")
        # What was typed before comes back by the arrow, and commands complete.
        terminal.press("Up")
        terminal.shows("> half a line")
        terminal.press("C-u")
        terminal.type("/hi")
        terminal.until(lambda shown: shown[-1].startswith(" /history [N]: the last N messages"))
        terminal.press("Tab")
        terminal.type("1")
        terminal.press("Enter")
        terminal.shows("mia: half a line", "mia: half a line", ">")
        coloured = "\n".join(terminal.screen("-e"))
        self.assertRegex(coloured, r"\x1b\[34mann\x1b\[\S+: one")
        # The server goes while a line is being typed, and comes back.
        terminal.type("are you th")
        self.server.stop()
        terminal.until(lambda shown: "· reconnecting in " in shown[-1])
        terminal.shows("! connection lost: disconnected by the server: shutdown (3001)", "> are you th")
        self.server.start()
        terminal.until(lambda shown: shown[-1].strip().endswith("· connected"))
        # It kept nothing: that is said; and what is said from now on comes once.
        self.say("back again")
        terminal.type("ere?")
        terminal.press("Enter")
        lost = "! Some messages could not be recovered."
        terminal.shows("* connected again", lost, "ann: back again", "mia: are you there?", ">")
        shown = terminal.screen(*_ALL)
        for line in (*heard, "ann: back again", "mia: are you there?"):
            self.assertEqual(shown.count(line), 1, shown)
        terminal.type("quit")
        terminal.press("Enter")
        terminal.until(lambda shown: shown[-1:] == ["ended with 0"])

    def test_resumes_where_it_was(self) -> None:
        """The connection alone is lost: what was said meanwhile is shown, in its place, once."""
        terminal = self.chat(NO_COLOR="1")
        self.say("before")
        terminal.type("half")
        terminal.shows("ann: before", "> half")
        client = next(iter(self.server.api("presence", channel="lobby")["presence"]))
        self.server.api("disconnect", user="", client=client, disconnect={"code": 3011, "reason": "elsewhere"})
        self.say("meanwhile", "and more")
        terminal.shows("* connected again", "ann: meanwhile", "ann: and more", "> half")
        shown = terminal.screen(*_ALL)
        self.assertIn("! connection lost: disconnected by the server: elsewhere (3011)", shown)
        self.assertEqual(len([each for each in shown if each.startswith("ann: ")]), 3)
        self.assertNotRegex("".join(terminal.screen("-e")), r"\x1b\[[349][0-7]m")
        terminal.press("C-c", "C-c")
        terminal.until(lambda shown: shown[-1:] == ["ended with 130"])

    def test_lines_wait_until_the_terminal_said_where_the_cursor_is(self) -> None:
        """An answer that is older than a line places the editor too low: lines above it scroll away."""
        command = [sys.executable, "-c", _PROGRAM, "chat", "--name", "mia"]
        terminal = SlowTerminal(command, LONGCONN_URL=f":{self.server.port}", NO_COLOR="1")
        self.addCleanup(terminal.stop)
        terminal.until(b"\x1b[6n")
        terminal.answer(1)
        terminal.until(b"connected")
        self.say("one")
        terminal.until(b": one", b"\x1b[6n")
        since = time.monotonic()
        self.say("two")
        terminal.type(b"x")
        terminal.until(b"x")
        # The editor gives a terminal a second.
        if time.monotonic() - since < 0.9:
            self.assertNotIn(b"two", terminal.shown)
        terminal.answer(2)
        terminal.until(b": two")

    def test_what_was_not_said_is_told(self) -> None:
        """It has left the line editor: who typed it sees which line it was, and that another one came."""
        terminal = self.chat("--timeout", "1")
        self.server.hold()
        terminal.type("is anybody there?")
        terminal.press("Enter")
        terminal.until(lambda shown: "! It may not have been sent: whether" in " ".join(shown))
        self.server.kill()
        terminal.until(lambda shown: "reconnecting in " in shown[-1])
        # What is typed without a connection waits for it, longer than an answer may take, and goes out once.
        for text in ("hello?", "still there?"):
            terminal.type(text)
            terminal.press("Enter")
            terminal.until(lambda shown, text=text: f"* goes out when the connection is back: {text}" in shown)
        terminal.until(lambda shown: " · 2 to send · " in shown[-1])
        time.sleep(1.5)
        self.server.start()
        terminal.until(lambda shown: shown[-1].strip().endswith("· connected"))
        terminal.shows("mia: hello?", "mia: still there?", ">")
        terminal.type("there you are")
        terminal.press("Enter")
        shown = terminal.until(lambda shown: shown[-3:-1] == ["mia: there you are", ">"])
        said = [each for each in shown if each.startswith("mia: ")]
        self.assertEqual(said, ["mia: hello?", "mia: still there?", "mia: there you are"])

    def test_leaving_without_a_connection(self) -> None:
        terminal = self.chat()
        self.server.kill()
        terminal.until(lambda shown: "reconnecting in " in shown[-1])
        terminal.type("hello?")
        terminal.press("Enter")
        terminal.until(lambda shown: "1 to send" in shown[-1])
        terminal.type("quit")
        terminal.press("Enter")
        terminal.until(lambda shown: "! It was not sent: there is no connection: hello?" in shown)

    def test_there_are_no_empty_rows(self) -> None:
        terminal = self.chat()
        self.say("one")
        terminal.shows("ann: one", ">")
        self.assertEqual([each[-4:] for each in terminal.rows()][-3:], [" one", ">", "cted"])
        self.assertEqual(len(terminal.rows()), 3)
        # Neither while a command is typed, nor after it, nor when the screen is full.
        self.say(*(str(number) for number in range(30)))
        terminal.type("/")
        terminal.until(lambda shown: "/nick NAME" in shown[-1])
        self.assertNotIn("", terminal.rows())
        terminal.press("C-c")
        terminal.shows("ann: 29", ">")
        self.assertEqual(len(terminal.rows()), 24)
        self.assertNotIn("", terminal.rows())

    def test_times(self) -> None:
        terminal = self.chat(TZ="UTC")
        self.say("two\nlines")
        terminal.shows("ann: two", "ann: lines", ">")
        said, more = terminal.rows()[-4:-2]
        self.assertRegex(said, r"^\d\d:\d\d ann: two$")
        self.assertEqual(more, "      ann: lines")

    def test_the_first_tab_completes(self) -> None:
        terminal = self.chat()
        for text, completed in (("/hi", "/history"), ("/w", "/who"), ("/join l", "/join lobby")):
            terminal.type(text)
            terminal.press("Tab")
            terminal.shows(f"> {completed}")
            terminal.press("C-c")
        self.say("x")
        for name in ("bob", "Bea"):
            self.server.post(f"/channels/lobby?name={name}", "y")
        terminal.shows("ann: x", "bob: y", "Bea: y", ">")
        # A name at the start addresses its bearer; the one that spoke last comes first, and the next Tab has the next.
        terminal.type("b")
        terminal.press("Tab")
        terminal.shows("> Bea:")
        terminal.until(lambda shown: shown[-1].split() == ["Bea:", "bob:"])
        terminal.press("Tab")
        terminal.shows("> bob:")
        terminal.type("ask a")
        terminal.press("Tab")
        terminal.type("now")
        terminal.press("Enter")
        terminal.shows("mia: bob: ask ann now", ">")
        terminal.type("zzz")
        terminal.press("Tab")
        terminal.shows("> zzz")

    def test_channels(self) -> None:
        terminal = self.chat()
        terminal.type("/channels")
        terminal.press("Enter")
        terminal.shows("* lobby (1)", ">")

    def test_ctrl_c_clears_the_line_and_ends_when_it_is_empty(self) -> None:
        terminal = self.chat()
        terminal.type("half a li")
        terminal.shows("> half a li")
        terminal.press("C-c")
        terminal.until(lambda shown: shown[-2:] == [">", " the line is cleared; Ctrl-C again leaves"])
        terminal.type("x")
        terminal.until(lambda shown: shown[-1].endswith("· connected"))
        terminal.press("C-c")
        terminal.shows(">")
        terminal.press("C-c")
        terminal.until(lambda shown: shown[-1:] == ["ended with 130"])

    def test_a_pasted_text_is_one_message(self) -> None:
        terminal = self.chat()
        terminal.paste("two\nlines\n")
        terminal.until(lambda shown: shown[-3:-1] == ["> two", "  lines"])
        terminal.press("Enter")
        terminal.shows("mia: two", "mia: lines", ">")
        offset = self.server.api("history", channel="lobby", limit=5)["offset"]
        self.assertEqual(offset, 1)

    def test_wide_characters_and_another_size(self) -> None:
        terminal = self.chat()
        terminal.type("你好 👋 wor")
        self.say("世界 😀")
        terminal.shows("ann: 世界 😀", "> 你好 👋 wor")
        terminal.resize(24, 12)
        terminal.until(lambda shown: shown[-1].strip() == "lobby · mia · connected")
        self.server.kill()
        terminal.until(lambda shown: shown[-1].startswith(" reconnecting in "))
        self.server.start()
        terminal.resize(90, 24)
        terminal.until(lambda shown: shown[-1].strip() == "lobby · mia · 1 here · connected")
        terminal.type("ld")
        terminal.press("Enter")
        terminal.shows("mia: 你好 👋 world", ">")

    def test_without_reconnecting(self) -> None:
        terminal = self.chat("--once")
        terminal.type("half a li")
        terminal.shows("> half a li")
        self.server.stop()
        shown = terminal.until(lambda shown: shown[-1:] == ["ended with 1"])
        self.assertEqual(shown[-2], "longconn: disconnected by the server: shutdown (3001)")


class SignalTests(SynchronousTestCase):
    """A program in a shell with job control: whatever ends or stops it, the terminal is as it was before."""

    def setUp(self) -> None:
        for each in ("tmux", "bash"):
            if shutil.which(each) is None:
                raise SkipTest(f"needs {each}")
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.server = Server()
        self.addCleanup(self.server.clean_up)
        url = f":{self.server.port}"
        environ = {"LONGCONN_URL": url, "LONGCONN_API_KEY": Server.KEY}
        self.terminal = Terminal(self.folder, "bash --norc --noprofile -i", **environ)
        self.addCleanup(self.terminal.stop)
        program = shlex.join([sys.executable, "-c", _PROGRAM])
        self.enter(f'PS1="$ "; longconn() {{ {program} "$@"; }}; cd {self.folder}; stty -a > before; clear; echo ready')
        self.terminal.until(lambda shown: "ready" in shown)

    def enter(self, text: str) -> None:
        self.terminal.type(text)
        self.terminal.press("Enter")

    def start(self, command: str, shows: str) -> int:
        """Run a command until it shows a text. Returns its process."""
        self.enter(f"clear; {command}")
        self.terminal.until(lambda shown: any(shows in each for each in shown))
        child = self.terminal.shell()
        for _ in ("bash", "longconn"):
            (child,) = Path(f"/proc/{child}/task/{child}/children").read_text().split()
        return int(child)

    def wait_for_shell(self) -> None:
        """Wait for its prompt: what is typed before that goes to the program."""
        self.terminal.until(lambda shown: shown[-1].endswith("$"))

    def assert_restored(self) -> None:
        self.enter("clear; stty -a | diff before - && echo as it was")
        self.terminal.until(lambda shown: "as it was" in shown)

    def test_signals_that_end_it(self) -> None:
        cases = (("longconn chat --name mia", "· connected"), (f"longconn top :{self.server.port}", "q ends"))
        for command, shows in cases:
            for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
                os.kill(self.start(command, shows), number)
                self.wait_for_shell()
                self.enter("echo ended with $?")
                self.terminal.until(lambda shown, number=number: f"ended with {128 + number}" in shown)
                self.assert_restored()

    def test_signals_that_stop_it(self) -> None:
        cases = (("longconn chat --name mia", "· connected"), (f"longconn top :{self.server.port}", "q ends"))
        for command, shows in cases:
            program = self.start(command, shows)
            for stop in (lambda: self.terminal.press("C-z"), signal.SIGTSTP, signal.SIGSTOP):
                if callable(stop):
                    stop()
                else:
                    os.kill(program, stop)
                self.terminal.until(lambda shown: any("Stopped" in each for each in shown))
                self.assert_restored()
                self.enter("clear; fg")
                self.terminal.until(lambda shown, shows=shows: any(shows in each for each in shown))
            if "chat" in command:
                self.terminal.type("still here")
                self.terminal.press("Enter")
                self.terminal.until(lambda shown: "mia: still here" in shown)
            os.kill(program, signal.SIGTERM)
            self.wait_for_shell()
            self.assert_restored()

    def test_a_signal_while_a_password_is_typed(self) -> None:
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            os.kill(self.start("longconn chat --user mia", "password of mia:"), number)
            self.wait_for_shell()
            self.enter("echo ended with $?")
            self.terminal.until(lambda shown, number=number: f"ended with {128 + number}" in shown)
            self.assert_restored()
