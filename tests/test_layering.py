"""Imports point one way and make no circle, a name means one thing, and importing the package installs no reactor."""

import ast
import graphlib
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import longconn

ROOT = Path(longconn.__file__).parent
STDLIB = sys.stdlib_module_names
#: The rooms that each room may import, beside itself and `longconn.__version__`.
ROOMS = {
    "core": (),
    "wire": ("core",),
    "auth": ("core",),
    "config": ("core", "auth"),
    "v1": (),
    "protocols": ("core", "wire", "v1"),
    "server_api": ("core", "wire", "protocols"),
    "service": ("core", "wire", "auth", "config", "protocols", "server_api", "redis"),
    "clients": ("core", "wire", "v1"),
    "redis": ("core",),
    "commands": ("core", "wire", "clients"),
}
#: The modules beside the rooms: what twistd and the console script start.
PROGRAMS = {"tap": ("core", "config", "service"), "cli": ("config", "clients", "commands")}
#: Within `protocols`: carriers of bytes stand above what is spoken over them, and chat and Centrifugo do not know each
#: other.
PROTOCOLS = {
    "connection": (),
    "port": ("connection",),
    "http": ("connection",),
    "websocket": ("connection",),
    "grpc": ("connection",),
    "chat": ("connection", "port", "websocket"),
    "centrifugo": ("connection", "http", "websocket"),
}
#: Rooms without Twisted, and the one package that they use.
PLAIN = ("core", "wire")
JSON = "msgspec"
#: Public names of `longconn.clients` for what the core has too: a program at the other end of the connection sees the
#: same thing, with other members. Both sides have the field's term, and no module imports both.
TWINS = {
    # the core: a connected peer; the clients: the program's own connection
    "Client": ("longconn.clients.client", "longconn.core.client"),
    # the core: a client in a channel, with its wire format; the clients: the events of a channel, to iterate over
    "Subscription": ("longconn.clients.subscription", "longconn.core.client"),
    # the same values; a program that imports the clients need not import the server's core
    "Position": ("longconn.clients.events", "longconn.core.publication"),
    # the core: data as it was written; the clients: a decoded JSON value
    "Publication": ("longconn.clients.events", "longconn.core.publication"),
    # an event of a connection, and of a member inside the server's process; each with a position of its own side
    "Lost": ("longconn.clients.events", "longconn.service.member"),
    # what a channel brings to the wire formats, and to a program
    "Event": ("longconn.clients.events", "longconn.core.publication"),
}


def imports(path: Path) -> set[str]:
    """Every module that a file imports, wherever in it, as a dotted name."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} imports by a relative name"
            names.add(node.module or "")
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def files(folder: str) -> list[Path]:
    found = sorted((ROOT / folder).rglob("*.py"))
    assert found
    return found


def module_name(path: Path) -> str:
    return ".".join(("longconn", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")


def imported_modules() -> dict[str, set[str]]:
    """The modules of the package, each with those that it imports, wherever in its text."""
    modules = {module_name(path): path for path in files(".")}
    graph: dict[str, set[str]] = {}
    for module, path in modules.items():
        graph[module] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                graph[module] |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                # What is imported from a package is a module, or a name that its `__init__.py` defines.
                names = {f"{node.module}.{alias.name}" for alias in node.names}
                graph[module] |= {name if name in modules else str(node.module) for name in names}
        graph[module] &= modules.keys() - {module}
    return graph


def defined_names(tree: ast.Module) -> Iterator[str]:
    """The classes of a module, and its type aliases, both without a leading underscore."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            yield node.name.lstrip("_")
    for node in tree.body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        for target in targets:
            name = target.id.lstrip("_") if isinstance(target, ast.Name) else ""
            # _T and CONSTANTS are neither.
            if name[:1].isupper() and not name.isupper():
                yield name


def imports_in_functions(path: Path) -> Iterator[tuple[int, bool]]:
    """The lines of imports inside functions, and whether a comment stands above each, or above the one before it."""
    lines = path.read_text().splitlines()
    for function in ast.walk(ast.parse(path.read_text())):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            for node in ast.walk(function):
                if isinstance(node, ast.Import | ast.ImportFrom):
                    above = node.lineno - 2
                    while lines[above].lstrip().startswith(("from ", "import ")):
                        above -= 1
                    yield node.lineno, lines[above].lstrip().startswith("#")


class LayeringTests(SynchronousTestCase):
    def check(self, own: str, allowed: tuple[str, ...], prefix: str, paths: list[Path]) -> None:
        for path in paths:
            for name in imports(path):
                if name.startswith(prefix + "."):
                    other = name.removeprefix(prefix + ".").split(".")[0]
                    fits = other == own or other in allowed or other == "__version__"
                    self.assertTrue(fits, f"{path.relative_to(ROOT)} imports {name}")

    def test_rooms_import_what_stands_above_them(self) -> None:
        for room, allowed in ROOMS.items():
            self.check(room, allowed, "longconn", files(room))
        for program, allowed in PROGRAMS.items():
            self.check(program, allowed, "longconn", [ROOT / f"{program}.py"])

    def test_the_rooms_have_an_order(self) -> None:
        for graph in (ROOMS, PROTOCOLS):
            tuple(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError for a circle

    def test_no_modules_import_each_other(self) -> None:
        """Imports for type checkers and inside functions count: knowledge is mutual wherever it stands."""
        graph = imported_modules()
        self.assertIn("longconn.core.door", graph["longconn.core.hub"])
        # The package's public names are lazy, and thus no import of what they lead to.
        self.assertTrue(graph.pop("longconn"))
        try:
            tuple(graphlib.TopologicalSorter(graph).static_order())
        except graphlib.CycleError as error:
            self.fail(f"modules import each other: {' imports '.join(reversed(error.args[1]))}")

    def test_a_room_takes_the_version_alone_from_the_package(self) -> None:
        """Its public names are lazy, so that a room could import another by them unseen."""
        for path in files("."):
            for name in imports(path):
                room = path.relative_to(ROOT).parts[0]
                if name.removeprefix("longconn.") in longconn.__all__ and room != "testing":
                    self.assertEqual(name, "longconn.__version__", path)
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "longconn":
                    self.assertEqual(node.attr, "__version__", f"{path}, line {node.lineno}")

    def test_an_import_inside_a_function_has_its_reason_above_it(self) -> None:
        found = {
            f"{path.relative_to(ROOT)}:{line}": ok for path in files(".") for line, ok in imports_in_functions(path)
        }
        self.assertTrue(found)
        self.assertEqual([place for place, commented in found.items() if not commented], [])

    def test_a_class_name_means_one_thing(self) -> None:
        defined = defaultdict(list)
        for path in files("."):
            if not path.stem.endswith("_pb2"):
                for name in defined_names(ast.parse(path.read_text())):
                    defined[name].append(module_name(path))
        self.assertEqual(defined["Hub"], ["longconn.core.hub"])
        twice = {name: tuple(sorted(modules)) for name, modules in defined.items() if len(modules) > 1}
        self.assertEqual(twice, TWINS)

    def test_every_room_is_known(self) -> None:
        rooms = {each.parent.name for each in ROOT.glob("*/*.py")} - {"testing", "web"}
        self.assertEqual(rooms, set(ROOMS))
        folders = {each.relative_to(ROOT / "protocols").parts[0] for each in files("protocols")} - {"__init__.py"}
        self.assertEqual({each.removesuffix(".py") for each in folders}, set(PROTOCOLS))

    def test_protocols_import_what_carries_them(self) -> None:
        for folder, allowed in PROTOCOLS.items():
            place = ROOT / "protocols" / folder
            paths = files(f"protocols/{folder}") if place.is_dir() else [place.with_suffix(".py")]
            self.check(folder, allowed, "longconn.protocols", paths)

    def test_the_core_and_the_wire_formats_need_no_other_package_than_a_reader_of_json(self) -> None:
        for room in PLAIN:
            for path in files(room):
                for name in imports(path):
                    top = name.split(".")[0]
                    self.assertTrue(
                        top in ("longconn", JSON) or top in STDLIB, f"{path.relative_to(ROOT)} imports {name}"
                    )

    def test_the_test_kit_sees_public_names_only(self) -> None:
        public = {f"longconn.{name}" for name in longconn.__all__}
        for path in files("testing"):
            for name in imports(path):
                if name.split(".")[0] == "longconn":
                    fits = name == "longconn" or name in public or name.startswith("longconn.testing")
                    self.assertTrue(fits, f"{path.name} imports {name}")

    def test_no_module_imports_the_reactor(self) -> None:
        for path in files("."):
            if path.name in ("tap.py", "cli.py"):
                continue
            self.assertNotIn("twisted.internet.reactor", imports(path), str(path))

    def test_a_fresh_process_has_no_reactor_after_importing_everything(self) -> None:
        modules = [".".join(("longconn", *path.relative_to(ROOT).with_suffix("").parts)) for path in files(".")]
        modules = [each.removesuffix(".__init__") for each in modules]
        self.assertIn("longconn.protocols.http.resource", modules)
        program = "import sys, importlib\n"
        program += f"for name in {modules!r}: importlib.import_module(name)\n"
        program += "import longconn\nfor name in longconn.__all__: getattr(longconn, name)\n"
        program += "sys.exit('a reactor was installed' if 'twisted.internet.reactor' in sys.modules else 0)"
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT.parent, timeout=60
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""))

    def test_requests_import_nothing(self) -> None:
        """At the time of its first request a server may be in a chroot, and its package may have been upgraded."""
        program = (
            "import sys, longconn.tap\n"
            "from longconn.testing import MemoryServer\n"
            "server = MemoryServer()\n"
            "factory = longconn.tap.LongConnService(server.clock, hub=server.hub)._factories['port']\n"
            "known = set(sys.modules)\n"
            "for path in ('/', '/page/main.js', '/openapi.json', '/channels/a/events', '/nothing', '/%ff'):\n"
            "    server.http_client(factory).get(path)\n"
            "server.websocket_client('/ws', factory).connection\n"
            "server.websocket_client('/connection/websocket', factory).connection\n"
            'for sent in (b\'hi\\n/who\\n/history\\n\', b\'{"id":1,"connect":{"token":"a.b.c"}}\\n\',\n'
            "             b'PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n', b'\\x16\\3\\1\\2\\0\\1'):\n"
            "    server.connect(factory).send(sent)\n"
            "server.advance(1)\n"
            "sys.exit(str(set(sys.modules) - known or ''))\n"
        )
        ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        self.assertEqual(ended.stderr.strip(), "")

    def test_importing_the_package_brings_in_neither_twisted_nor_autobahn(self) -> None:
        program = "import sys, longconn\nfound = {'twisted', 'autobahn'} & set(sys.modules)\nsys.exit(str(found or ''))"
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT.parent, timeout=60
        )
        self.assertEqual(done.stderr.strip(), "")
