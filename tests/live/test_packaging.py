"""What `pip install .` and `pip install -e .` leave behind: the programs find the plugin from any folder."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

import longconn

ROOT = Path(longconn.__file__).parents[1]
PATIENCE = 120


class PackagingTests(SynchronousTestCase):
    def setUp(self) -> None:
        if not (ROOT / "setup.cfg").exists():
            raise SkipTest("not in a source tree")
        self.folder = Path(self.mktemp()).absolute()
        self.source = self.folder / "source"
        # A copy: a build writes into its tree, and what git ignores must not get into the wheel.
        ignored = shutil.ignore_patterns("__pycache__", "dropin.cache", "*.egg-info", "build")
        for name in ("longconn", "twisted"):
            shutil.copytree(ROOT / name, self.source / name, ignore=ignored)
        for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
            if (ROOT / name).exists():
                shutil.copy(ROOT / name, self.source)

    def environment(self) -> Path:
        """A fresh environment that sees the dependencies of this one, but no package that is installed by a .pth.

        Neither pip nor anything else is copied there, and nothing comes from a network.
        """
        folder = self.folder / "venv"
        venv.create(folder, with_pip=False, symlinks=True)
        python = folder / "bin" / "python"
        own = self.run_in("/", python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
        paths = dict.fromkeys((sysconfig.get_path("purelib"), sysconfig.get_path("platlib")))
        (Path(own) / "of_the_tests.pth").write_text("\n".join(paths) + "\n")
        return python

    def run_in(self, folder: str | Path, *command: str | Path) -> str:
        environ = {each: os.environ[each] for each in os.environ if not each.startswith(("PYTHON", "PIP_"))}
        environ |= {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}
        done = subprocess.run(
            [str(each) for each in command], cwd=folder, env=environ, timeout=PATIENCE,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8",
        )  # fmt: skip
        self.assertEqual(done.returncode, 0, done.stdout)
        return done.stdout

    def install(self, *what: str | Path) -> Path:
        python = self.environment()
        self.run_in(
            self.source, sys.executable, "-m", "pip", "--python", python, "install",
            "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--ignore-installed", *what,
        )  # fmt: skip
        return python

    def assert_works(self, python: Path, home: Path) -> None:
        """Everything is found from `/`, and longconn comes from `home`."""
        where = self.run_in("/", python, "-c", "import longconn; print(longconn.__file__)").strip()
        self.assertTrue(Path(where).is_relative_to(home), where)
        for program in (("-c", "from twisted.scripts.twistd import run; run()"), ("-m", "twisted")):
            self.assertRegex(self.run_in("/", python, *program, "--help"), r"\n +longconn +\S")
            self.assertIn("--default-channel", self.run_in("/", python, *program, "longconn", "--help"))
        script = python.parent / "longconn"
        self.assertEqual(self.run_in("/", script, "--version"), f"longconn {longconn.__version__}\n")

    def test_install(self) -> None:
        python = self.install(".")
        packages = python.parents[1] / "lib"
        self.assert_works(python, packages)
        installed = [each.relative_to(packages) for each in packages.rglob("*") if "dist-info" not in str(each)]
        names = {str(Path(*each.parts[2:])) for each in installed}
        self.assertIn("longconn/py.typed", names)
        # `man` and the shells find theirs.
        share = python.parents[1] / "share"
        for each in ("man/man1/longconn-sub.1", "bash-completion/completions/longconn", "zsh/site-functions/_longconn"):
            self.assertTrue((share / each).exists(), each)
        self.assertIn("longconn\\-sub", self.run_in("/", python.parent / "longconn", "man", "sub"))
        self.assertIn("longconn/protocols/http/openapi.json", names)
        self.assertIn("twisted/plugins/longconn_plugin.py", names)
        # An __init__.py in either would hide Twisted, or our plugin.
        self.assertNotIn("twisted/__init__.py", names)
        self.assertNotIn("twisted/plugins/__init__.py", names)
        self.assertFalse([each for each in names if each.startswith(("tests", "docs", "bench"))])
        web = {str(each.relative_to(ROOT)) for each in (ROOT / "longconn" / "web").glob("*.*")}
        self.assertEqual(web - names, set())

    def test_editable_install(self) -> None:
        self.assert_works(self.install("-e", "."), self.source)
