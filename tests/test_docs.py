"""The documentation: its listings run, its tables match the code, and its links exist."""

import base64
import http.client
import importlib.util
import itertools
import os
import re
import shlex
import shutil
import socket
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from twisted.trial.unittest import SkipTest, SynchronousTestCase

import longconn
import longconn.testing
from longconn.config.file import NAMES, flag
from longconn.server_api.http import NAMES as API_METHODS
from longconn.wire.chat import COMMANDS
from tests.live import forks

ROOT = Path(longconn.__file__).parents[1]
DOCS = ROOT / "docs"
EXAMPLES = DOCS / "examples"
PATIENCE = 20
COMMANDS_OF_CLIENTS = ("chat", "sub", "pub", "get", "probe", "echo", "cert", "top", "info", "channels", "disconnect")


def _load(name: str) -> ModuleType:
    """Import a program of docs/ as a module."""
    spec = importlib.util.spec_from_file_location(f"longconn_docs_{name}", DOCS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up there
    sys.path.insert(0, str(DOCS))  # the programs import each other
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(DOCS))
    return module


listings = _load("listings")
tables = _load("tables")
PAGES: list[Path] = listings.pages()


class ListingTests(SynchronousTestCase):
    """Each console listing of each page is a test of its own."""

    def test_there_are_some(self) -> None:
        self.assertGreater(len([each for each in dir(self) if each.startswith("test_listing_")]), 15)

    def test_every_listing_is_run(self) -> None:
        """A listing is run here, by .ci/run, or as an included file. Listings that cannot run are `text`."""
        steps = (ROOT / ".ci" / "run").read_text()
        unknown = []
        for page in PAGES:
            for each in listings.listings(page):
                if each.language == "sh":
                    lines = [line.partition("  #")[0].strip() for line in each.text.splitlines()]
                    unknown += [f"{each}: .ci/run lacks {line}" for line in lines if line not in steps]
                elif each.language not in (
                    "console",
                    "text",
                    "toml",
                    "{literalinclude}",
                    "{eval-rst}",
                    "{toctree}",
                    "{include}",
                ):
                    unknown.append(f"{each}: {each.language}")
        self.assertEqual(unknown, [])

    def test_examples_are_shown(self) -> None:
        """Every file of docs/examples is in a page."""
        shown = {
            (page.parent / each.argument).resolve()
            for page in PAGES
            for each in listings.listings(page)
            if each.language == "{literalinclude}"
        }
        self.assertEqual(shown, {each for each in EXAMPLES.glob("*") if each.is_file()})


#: What the console scripts call.
_SCRIPTS = {"longconn": "longconn.cli:main", "twistd": "twisted.scripts.twistd:run"}

#: Characters that mean something to a shell.
_OF_SHELLS = "|&;<>()$`*?~#"


def _start(command: str, folder: Path, environ: Mapping[str, str]) -> Any:
    """A command of a listing: forked where it is one of our scripts alone, run by a shell where it is anything else."""
    lexer = shlex.shlex(command, posix=True, punctuation_chars=_OF_SHELLS)
    lexer.whitespace_split = True
    words = list(lexer)
    variables = list(itertools.takewhile(lambda each: re.match(r"[A-Z_]+=", each), words))
    script, *arguments = words[len(variables) :]
    if script not in _SCRIPTS or any(set(each) <= set(_OF_SHELLS) for each in words):
        return listings.shell(command, folder, environ)
    given = dict(each.split("=", 1) for each in variables)
    return forks.Program(_SCRIPTS[script], [script, *arguments], folder, {**environ, **given})


def _listing_test(listing: Any) -> Any:
    def test(self: SynchronousTestCase) -> None:
        missing = listings.missing(listing)
        if missing:
            raise SkipTest(f"needs {', '.join(sorted(missing))}")
        listings.run(listing, _start)

    test.__doc__ = f"{listing} shows what happens."
    return test


for _page in PAGES:
    for _number, _listing in enumerate(listings.listings(_page), start=1):
        if _listing.language == "console":
            _name = re.sub(r"\W+", "_", str(_page.relative_to(ROOT).with_suffix("")))
            setattr(ListingTests, f"test_listing_{_name}_{_number}", _listing_test(_listing))


class PageTests(SynchronousTestCase):
    def test_tables_are_current(self) -> None:
        """If this fails: python docs/tables.py."""
        stale = [str(each) for each in PAGES if each.read_text() != tables.current(each.read_text())]
        self.assertEqual(stale, [])
        self.assertEqual(tables.missing_texts(), [])
        self.assertEqual(tables.manual.stale(), [])
        placed = {match[2] for page in PAGES for match in tables._TABLE.finditer(page.read_text())}
        self.assertEqual(placed, set(tables.TABLES))

    def test_the_map_names_files_and_functions_that_exist(self) -> None:
        text = (ROOT / "CONTRIBUTING.md").read_text()
        chapter = text[text.index("## Map") : text.index("## Layers")]
        named = re.findall(r"`((?:\w+/)+\w+\.\w+)`(?::\s+`([A-Za-z_.]+)`)?", chapter)
        self.assertGreater(sum(bool(name) for _, name in named), 30)
        for path, name in named:
            found = next((each for each in (ROOT / "longconn" / path, ROOT / path) if each.exists()), None)
            assert found is not None, f"CONTRIBUTING.md names {path}"
            if name:
                module = import_module(".".join(found.relative_to(ROOT).with_suffix("").parts))
                value: Any = module
                for part in name.split("."):
                    value = getattr(value, part, None)
                self.assertIsNotNone(value, f"CONTRIBUTING.md names {name} of {path}")

    def test_the_picture_of_a_message_names_files_that_exist(self) -> None:
        named = re.findall(r'class="file"[^>]*>([^<]+)<', (DOCS / "topics/flow.svg").read_text())
        self.assertGreater(len(named), 15)
        self.assertEqual([each for each in named if not (ROOT / "longconn" / each).exists()], [])

    def test_links_exist(self) -> None:
        broken = []
        for page in PAGES:
            for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
                path = target.partition("#")[0]
                if path and "://" not in path and not (page.parent / path).exists():
                    broken.append(f"{page}: {target}")
        self.assertEqual(broken, [])

    def test_every_page_is_reached(self) -> None:
        """Sphinx warns of pages without an entry in a table of contents. README must name all pages."""
        readme = (ROOT / "README.md").read_text()
        for folder in ("how-to", "reference", "topics"):
            for page in (DOCS / folder).glob("*.md"):
                self.assertIn(f"docs/{folder}/{page.name}", readme)

    def test_search_finds_the_words_of_readers(self) -> None:
        """A word that a reader types is in the title of the page that answers it: titles come first in the search."""
        for word, page in (
            ("authentication", "how-to/logins"),
            ("authentication", "how-to/tokens"),
            ("authorization", "reference/namespaces"),
            ("rate limits", "how-to/limits"),
            ("docker", "how-to/containers"),
            ("metrics", "how-to/operate"),
            ("redis", "how-to/scale"),
            ("https", "how-to/tls"),
            ("backpressure", "topics/slow-clients"),
        ):
            self.assertIn(word, (DOCS / f"{page}.md").read_text().partition("\n")[0].lower(), page)

    def test_flags_exist(self) -> None:
        known = {flag(name) for name in NAMES} | {"--config", "--help", "--help-auth", "--version"}
        for command in COMMANDS_OF_CLIENTS:
            actions = import_module(f"longconn.commands.{command}").parser()._actions
            known |= {option for action in actions for option in action.option_strings}
        unknown = []
        for page in PAGES:
            # Only code that starts with a flag: other code may have flags of other programs.
            for code in re.findall(r"`(--[a-z][^`]*)`", page.read_text()):
                unknown += [f"{page}: {each}" for each in re.findall(r"--[a-z-]+", code) if each not in known]
        self.assertEqual([each for each in unknown if not each.endswith((": --strict", ": --check"))], [])

    def test_public_names_are_described(self) -> None:
        page = (DOCS / "reference" / "python.md").read_text()
        for name in longconn.__all__:
            self.assertRegex(page, rf":: longconn\.{name}\n")
        self.assertIn("automodule:: longconn.testing", page)
        for name in longconn.testing.__all__:
            self.assertTrue(getattr(longconn.testing, name).__doc__, name)

    def test_chat_commands_are_described(self) -> None:
        page = (DOCS / "reference" / "chat.md").read_text()
        described = set(re.findall(r"^\| `(/\w[^`]*)` \|", page, re.MULTILINE))
        self.assertEqual(described, set(COMMANDS.values()))

    def test_methods_of_the_api_are_described(self) -> None:
        """Each method is in a table, and a listing calls it."""
        page = DOCS / "reference" / "api.md"
        described = re.findall(r"^\| `(\w+)` \|", page.read_text(), re.MULTILINE)
        self.assertEqual(sorted(described), sorted(API_METHODS))
        called = {name for each in listings.listings(page) for name in re.findall(r"/api/(\w+)", each.text)}
        self.assertEqual(called, set(API_METHODS))

    def test_paths_exist(self) -> None:
        """The server serves the paths of the reference with their methods."""
        page = (DOCS / "reference" / "http.md").read_text()
        found = re.findall(r"`(GET|POST) (/\S*)`", page.partition("## A publication")[0])
        self.assertGreater(len(found), 9)
        server = longconn.testing.MemoryServer(longconn.Settings(api_key="key"))
        self.addCleanup(server.stop)
        for method, path in found:
            client = server.http_client()
            body = b"hello" if method == "POST" else b""
            response = client.request(method, path.replace("NAME", "lobby"), body, [("X-API-Key", "key")])
            self.assertIn(response.status, (200, 426), path)

    def test_fragments_are_named(self) -> None:
        for each in (ROOT / "newsfragments").iterdir():
            if each.name not in ("README.md", "towncrier.toml"):
                self.assertRegex(each.name, r"^(\d+|\+[\w-]+)\.(feature|change|bugfix|deprecation|misc)\.md$")


class ExampleTests(SynchronousTestCase):
    """The programs of docs/examples as processes, with clients in this process."""

    def setUp(self) -> None:
        # Short, since a UNIX socket's path has a limit of about 100 bytes.
        self.folder = Path(self.mktemp())
        self.folder.mkdir(parents=True)
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("LONGCONN_", "PYTHON"))}
        self.environ = kept | {
            "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1",
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
        }  # fmt: skip

    def ports(self, count: int) -> list[str]:
        """Free ports, which stay free until the test ends."""
        kept = [listings.reserve() for _ in range(count)]
        for each in kept:
            self.addCleanup(each.close)
        return [str(each.getsockname()[1]) for each in kept]

    def start(self, command: str, ready: str, descriptors: Sequence[int] = (), **environ: str) -> re.Match[str]:
        """Run a program until the test ends. Returns the match of `ready` in its output."""
        program = listings.Program(listings.shell(command, self.folder, self.environ | environ, descriptors))
        self.addCleanup(program.stop)
        seen: list[str] = []
        while True:
            line = program.lines.get(timeout=PATIENCE)
            if line is None:
                self.fail("\n".join(seen))
            seen.append(line)
            match = re.search(ready, line)
            if match is not None:
                return match

    def connect(self, address: Any) -> Any:
        client = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
        self.addCleanup(client.close)
        client.settimeout(PATIENCE)
        client.connect(address)
        lines = client.makefile("rwb", buffering=0)
        self.addCleanup(lines.close)
        return lines

    def python(self, example: str, *arguments: str) -> str:
        return shlex.join([sys.executable, str(EXAMPLES / example), *arguments])

    def test_unix_chat(self) -> None:
        self.start(self.python("unix_chat.py", "s"), "listening on s$")
        path = os.path.relpath(self.folder / "s")
        ann = self.connect(path)
        # The program publishes once there is a subscriber.
        self.assertEqual(ann.readline(), b"worker: still working\r\n")
        bob = self.connect(path)
        bob.write(b"how far are you?\n")
        self.assertEqual(bob.readline(), b"guest-2: how far are you?\r\n")
        heard = [ann.readline(), ann.readline(), ann.readline()]
        self.assertIn(b"guest-2: how far are you?\r\n", heard)

    def test_bot(self) -> None:
        """On the default reactor, and on the asyncio reactor."""
        run = "import runpy, sys; from twisted.internet import asyncioreactor; asyncioreactor.install(); "
        run += "del sys.argv[0]; runpy.run_path(sys.argv[0], run_name='__main__')"
        bot = self.python("bot.py", "127.0.0.1:0")
        for command in (bot, bot.replace(sys.executable, shlex.join([sys.executable, "-c", run]), 1)):
            port = int(self.start(command, r"127\.0\.0\.1:(\d+)")[1])
            ann = self.connect(("127.0.0.1", port))
            ann.write(b"/nick ann\nhello\n")
            lines = [ann.readline() for _ in range(3)]
            self.assertEqual(lines[-1], b"bot: hello, ann\r\n", lines)

    def test_site_with_login(self) -> None:
        port = int(self.start(self.python("site_with_login.py", "tcp:0:interface=127.0.0.1"), r"127\.0\.0\.1:(\d+)")[1])
        login = {"Authorization": "Basic " + base64.b64encode(b"ann:secret").decode()}

        def ask(method: str, path: str, body: str | None = None, headers: dict[str, str] = login) -> tuple[int, bytes]:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
            self.addCleanup(connection.close)
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return response.status, response.read()

        self.assertEqual(ask("GET", "/")[1], b"the site that was here before\n")
        self.assertEqual(ask("POST", "/live/channels/lobby", "no password", {})[0], 401)
        # A WebSocket also goes through the login.
        chat = self.connect(("127.0.0.1", port))
        chat.write(
            b"GET /live/ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            + f"Authorization: {login['Authorization']}\r\n\r\n".encode()
        )
        self.assertIn(b" 101 ", chat.readline())
        while chat.readline() != b"\r\n":
            pass
        self.assertEqual(ask("POST", "/live/channels/lobby", "disk full")[0], 200)
        self.assertEqual(chat.read(2 + 14), b"\x81\x0eann: disk full")

    def test_service(self) -> None:
        ports = self.ports(2)
        text = (EXAMPLES / "service.tac").read_text().replace("9999", ports[0]).replace("9998", ports[1])
        (self.folder / "service.tac").write_text(text)
        program = shlex.join([sys.executable, "-c", "from twisted.scripts.twistd import run; run()"])
        self.start(f"{program} -n --pidfile= -y service.tac", rf"listening on 127.0.0.1:{ports[1]}")
        for port in ports:
            client = self.connect(("127.0.0.1", int(port)))
            client.write(b"ping\n")
            self.assertEqual(client.readline(), b"pong\r\n")

    def test_systemd_units(self) -> None:
        """The command of the service unit serves the socket of the socket unit, passed on as systemd does."""
        service, unit = (EXAMPLES / "longconn.service").read_text(), (EXAMPLES / "longconn.socket").read_text()
        command = re.search(
            r"^ExecStart=/opt/longconn/bin/(longconn serve --config=)/etc/longconn.toml$", service, re.M
        )
        name = re.search(r"^FileDescriptorName=(\S+)$", unit, re.M)
        assert command is not None
        assert name is not None
        page = listings.listings(DOCS / "how-to" / "systemd.md")
        (self.folder / "longconn.toml").write_text(next(each.text for each in page if each.language == "toml"))
        program = shlex.quote(str(Path(sys.executable).parent / "longconn"))
        if not shutil.which("longconn", path=str(Path(sys.executable).parent)):
            program = shlex.join([sys.executable, "-c", "import longconn.cli; longconn.cli.main()"])
        started = command[1].replace("longconn serve", f"{program} serve") + "longconn.toml"
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            listening.listen()
            port = listening.getsockname()[1]
            # As descriptor 3, the first that systemd passes on (sd_listen_fds(3)).
            script = "import os, sys; os.dup2(int(sys.argv[1]), 3); os.execvp('sh', ['sh', '-c', sys.argv[2]])"
            hand_over = [sys.executable, "-c", script, str(listening.fileno())]
            self.start(
                "exec " + shlex.join([*hand_over, f"LISTEN_PID=$$ exec {started}"]),
                f"listening on 127.0.0.1:{port}",
                descriptors=[listening.fileno()],
                LISTEN_FDS="1",
                LISTEN_FDNAMES=name[1],
            )
        client = self.connect(("127.0.0.1", port))
        client.write(b"ping\n")
        self.assertEqual(client.readline(), b"pong\r\n")

    def test_nginx(self) -> None:
        """POST, a stream and a WebSocket go through nginx with the configuration of the page."""
        nginx = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
        if nginx is None:
            raise SkipTest("needs nginx")
        ours, theirs = self.ports(2)
        block = (
            (EXAMPLES / "nginx.conf")
            .read_text()
            .replace("9999", ours)
            .replace("listen 8080", f"listen 127.0.0.1:{theirs}")
        )
        (self.folder / "nginx.conf").write_text(
            "daemon off; pid nginx.pid; error_log stderr notice;\nevents {}\nhttp { access_log off;\n"
            + "".join(f"{each}_temp_path {each};\n" for each in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
            + block + "}\n"
        )  # fmt: skip
        server = shlex.join([sys.executable, "-c", "import longconn.cli; longconn.cli.main()"])
        self.start(f"{server} serve --port=127.0.0.1:{ours} --allowed-origin=https://chat.example.org", "listening on")
        folder = shlex.quote(str(self.folder.absolute()))
        self.start(f"exec {nginx} -p {folder} -c nginx.conf -e stderr", "start worker process")
        head = "Host: chat.example.org\r\nOrigin: https://chat.example.org\r\n"
        events, chat, post = (self.connect(("127.0.0.1", int(theirs))) for _ in range(3))
        events.write(f"GET /channels/lobby/events HTTP/1.1\r\n{head}\r\n".encode())
        while events.readline() != b":ok\n":
            pass
        chat.write(
            f"GET /ws?name=ann HTTP/1.1\r\n{head}Upgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
        )
        self.assertIn(b" 101 ", chat.readline())
        while chat.readline() != b"\r\n":
            pass
        post.write(f"POST /channels/lobby?name=cron HTTP/1.1\r\n{head}Content-Length: 9\r\n\r\ndisk full".encode())
        self.assertIn(b" 200 ", post.readline())
        self.assertEqual(chat.read(2 + 15), b"\x81\x0fcron: disk full")
        while b'"data":"disk full"' not in events.readline():
            pass
