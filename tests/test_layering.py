"""Dependencies point one way; and importing us brings no reactor."""

import ast
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import longconn

ROOT = Path(longconn.__file__).parent
#: Protocol modules that are no protocol but tools of several.
TOOLS = {"outlet", "peer", "handover", "conversation", "session", "replies", "arrival", "intake", "compose"}


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
    def check(self, folder: str, allowed: tuple[str, ...], others: bool) -> None:
        """Of longconn a folder imports only what starts with one of `allowed`; `others`: of other packages any."""
        for path in files(folder):
            for name in imports(path):
                top = name.split(".")[0]
                fits = name == "longconn" or name.startswith(allowed) if top == "longconn" else others or top in STDLIB
                self.assertTrue(fits, f"{path.relative_to(ROOT)} imports {name}")

    def test_the_core_imports_nothing_but_itself(self) -> None:
        self.check("core", ("longconn.core",), others=False)

    def test_wire_formats_import_the_core_alone(self) -> None:
        self.check("wire", ("longconn.core", "longconn.wire"), others=False)

    def test_protocols_know_no_service(self) -> None:
        self.check("protocols", ("longconn.core", "longconn.wire", "longconn.protocols", "longconn.v1"), others=True)

    def test_no_protocol_imports_another(self) -> None:
        for path in files("protocols"):
            # A module, or a folder with all that is in it.
            own = path.relative_to(ROOT / "protocols").parts[0].removesuffix(".py")
            if own == "compose":
                continue
            for name in imports(path):
                if name.startswith("longconn.protocols."):
                    other = name.split(".")[2]
                    kin = other.split("_")[0] == own.split("_")[0]
                    # The one call of `compose` is made when the first upgrade comes, by name.
                    self.assertTrue(other in TOOLS or kin, f"{own} imports {other}")

    def test_the_test_kit_sees_public_names_only(self) -> None:
        public = {f"longconn.{name}" for name in longconn.__all__}
        for path in files("testing"):
            for name in imports(path):
                if name.split(".")[0] == "longconn":
                    fits = name == "longconn" or name in public or name.startswith("longconn.testing")
                    self.assertTrue(fits, f"{path.name} imports {name}")

    def test_clients_know_nothing_of_the_server(self) -> None:
        self.check("clients", ("longconn.clients", "longconn.v1"), others=True)

    def test_no_module_imports_the_reactor(self) -> None:
        for path in files("."):
            if path.name in ("tap.py", "cli.py"):
                continue
            self.assertNotIn("twisted.internet.reactor", imports(path), str(path))

    def test_a_fresh_process_has_no_reactor_after_importing_everything(self) -> None:
        modules = [".".join(("longconn", *path.relative_to(ROOT).with_suffix("").parts)) for path in files(".")]
        modules = [each.removesuffix(".__init__") for each in modules]
        self.assertIn("longconn.protocols.http", modules)
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


STDLIB = sys.stdlib_module_names
