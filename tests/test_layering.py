"""Dependencies point one way; and importing us brings no reactor."""

import ast
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import longconn

ROOT = Path(longconn.__file__).parent
STDLIB = sys.stdlib_module_names
#: What each room may import of longconn, beside itself and the package's own name. The order is the house's: what
#: stands above is imported by what stands below.
ROOMS = {
    "core": ("server_api",),
    "wire": ("core",),
    "auth": ("core", "config"),
    "config": ("core", "auth"),
    "protocols": ("core", "wire", "v1", "server_api"),
    "server_api": ("core", "wire", "protocols"),
    "service": ("core", "wire", "auth", "config", "protocols", "server_api"),
    "clients": ("wire", "core", "v1"),
    "commands": ("core", "wire", "clients"),
    "v1": (),
}
#: Within `protocols`: what carries bytes stands above what is spoken over it, and no two languages know each other.
PROTOCOLS = {
    "connection": (),
    "port": ("connection",),
    "http": ("connection", "centrifugo", "compose"),
    "websocket": ("connection",),
    "grpc": ("connection",),
    "chat": ("connection", "port", "websocket"),
    "centrifugo": ("connection", "http", "websocket"),
    "compose": ("centrifugo", "chat", "websocket"),
}
#: Rooms without Twisted, and the one package that they use.
PLAIN = ("core", "wire")
JSON = "msgspec"


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


class LayeringTests(SynchronousTestCase):
    def check(self, own: str, allowed: tuple[str, ...], prefix: str, paths: list[Path]) -> None:
        for path in paths:
            for name in imports(path):
                if name.startswith(prefix + "."):
                    other = name.removeprefix(prefix + ".").split(".")[0]
                    fits = other == own or other in allowed or other.startswith("_")
                    self.assertTrue(fits, f"{path.relative_to(ROOT)} imports {name}")

    def test_rooms_import_what_stands_above_them(self) -> None:
        for room, allowed in ROOMS.items():
            self.check(room, allowed, "longconn", files(room))

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

    def test_importing_the_package_brings_in_neither_twisted_nor_autobahn(self) -> None:
        program = "import sys, longconn\nfound = {'twisted', 'autobahn'} & set(sys.modules)\nsys.exit(str(found or ''))"
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT.parent, timeout=60
        )
        self.assertEqual(done.stderr.strip(), "")
