"""Completions of shells and manual pages."""

import io
import shlex
import shutil
import subprocess
from contextlib import redirect_stderr, redirect_stdout

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from longconn.cli import COMMANDS, main
from longconn.config.flags import CommandLineOptions
from longconn.manual import SHELLS, page_of
from tests.test_docs import tables

PATIENCE = 20


def run(*arguments: str) -> tuple[int, str, str]:
    """A command in this process: its exit status, output and error output."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            status = main(arguments)
        except SystemExit as end:  # of argparse
            status = int(end.code or 0)
    return status, out.getvalue(), err.getvalue()


class ManualTests(SynchronousTestCase):
    def test_every_option_of_the_server_is_described(self) -> None:
        parsed = {f"--{each.rstrip('=')}" for each in CommandLineOptions().longOpt}
        actions = tables.manual.server_parser("serve", "")._actions
        described = {each for action in actions for each in action.option_strings}
        self.assertEqual(parsed - described, set())
        self.assertEqual({each for each in described - parsed if each.startswith("--")}, set())

    def test_pages(self) -> None:
        for command in COMMANDS:
            self.assertEqual(run("man", command), (0, page_of(command).read_text(), ""))
            self.assertIn(f"longconn\\-{command}", page_of(command).read_text())
        status, out, _ = run("man")
        self.assertEqual(status, 0)
        for command in COMMANDS:
            self.assertIn(f".B longconn {command}\n", out)

    def test_pages_are_without_errors(self) -> None:
        if shutil.which("groff") is None:
            raise SkipTest("needs groff")
        for command in ("", *COMMANDS):
            arguments = ["groff", "-man", "-Tutf8", "-ww", str(page_of(command))]
            done = subprocess.run(arguments, capture_output=True, text=True, timeout=PATIENCE)
            self.assertEqual((done.returncode, done.stderr), (0, ""), command)

    def test_wrong_command_lines(self) -> None:
        for arguments in (("completion", "csh"), ("completion",), ("man", "nothing"), ("man", "--x")):
            status, out, err = run(*arguments)
            self.assertEqual((status, out, err.count("\n")), (2, "", 1), err)


class CompletionTests(SynchronousTestCase):
    def complete(self, *command: str) -> list[str]:
        """The words that a program of a shell prints."""
        if shutil.which(command[0]) is None:
            raise SkipTest(f"needs {command[0]}")
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, stdin=subprocess.DEVNULL)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return done.stdout.split()

    def test_printed(self) -> None:
        for shell, path in SHELLS.items():
            self.assertEqual(run("completion", shell), (0, path.read_text(), ""))

    def test_bash(self) -> None:
        for words, completed in (
            (("longconn", "pr"), ["probe"]),
            (("longconn", "sub", "--la"), ["--last"]),
            (("longconn", "serve", "--names", ""), ["auto", "address", "guest"]),
        ):
            script = f"source {SHELLS['bash']}; COMP_WORDS=({shlex.join(words)})"
            script += f"; COMP_CWORD={len(words) - 1}; _shtab_longconn; echo ${{COMPREPLY[@]}}"
            self.assertEqual(self.complete("bash", "--norc", "-c", script), completed)

    def test_fish(self) -> None:
        for line, completed in (("longconn pr", "probe"), ("longconn sub --la", "--last"), ("longconn man e", "echo")):
            script = f"source {SHELLS['fish']}; complete -C '{line}' | cut -f1"
            self.assertEqual(self.complete("fish", "--no-config", "-c", script), [completed])

    def test_zsh(self) -> None:
        script = f'autoload -U compinit; compinit -u -D; eval "$(<{SHELLS["zsh"]})"; print $_comps[longconn]'
        self.assertEqual(self.complete("zsh", "-fc", script), ["_shtab_longconn"])
        self.assertEqual(self.complete("zsh", "-n", str(SHELLS["zsh"])), [])
