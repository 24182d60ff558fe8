"""The command line's flags."""

import contextlib
import io
import os
from pathlib import Path

from twisted.python.usage import UsageError
from twisted.trial.unittest import TestCase

import longconn
from longconn.config.file import NAMES, PORTS, flag
from longconn.config.flags import CommandLineOptions
from longconn.config.values import is_list, kind_of
from longconn.core.settings import OPTIONS


class OptionsTests(TestCase):
    def setUp(self) -> None:
        self.patch(os, "environ", {each: os.environ[each] for each in os.environ if not each.startswith("LONGCONN_")})

    def parsed(self, *arguments: str) -> CommandLineOptions:
        options = CommandLineOptions()
        options.parseOptions(list(arguments))
        return options

    def refused(self, *arguments: str) -> str:
        return str(self.assertRaises(UsageError, self.parsed, *arguments))

    def printed(self, *arguments: str) -> str:
        stdout = io.StringIO()
        with contextlib.redirect_stdout(stdout):
            error = self.assertRaises(SystemExit, self.parsed, *arguments)
        self.assertFalse(error.code)
        return stdout.getvalue()

    def test_every_option_has_a_flag_and_a_line_of_help(self) -> None:
        text = self.printed("--help")
        for name in NAMES:
            self.assertIn(f"  {flag(name)}=", text)
        for name, option in OPTIONS.items():
            value = option.metadata["choices"][:1] or ("true" if kind_of(option) == "bool" else "7000",)
            # Options that are checked against others have their own tests.
            if name.startswith(("broker", "allowed_origin", "user_personal_channel", "admin_user", "tls_", "trusted")):
                continue
            if not name.endswith(("_key", "_namespace")):
                config = self.parsed(f"{flag(name)}={value[0]}").config
                self.assertEqual(config.sources[name], f"flag {flag(name)}")

    def test_repeated(self) -> None:
        repeated = [*PORTS, "allowed_host"]
        others = [
            "broker",
            "allowed_origin",
            "allowed_host",
            "trusted_proxy",
            "tls_cert",
            "tls_key",
            "auth",
            "hook_header",
            "webhook_event",
            "admin_user",
        ]
        self.assertEqual(repeated[:-1] + [each for each in OPTIONS if is_list(OPTIONS[each])],
                         [*PORTS, *others])  # fmt: skip
        for name in [each for each in repeated if not each.startswith(("tls_", "trusted"))]:
            config = self.parsed(flag(name), "1", flag(name) + "=2").config
            self.assertEqual(config.value(name), ("1", "2"))

    def test_file_and_environment(self) -> None:
        path = Path(self.mktemp())
        path.write_text("history_size = 5\nhistory_ttl = '1m'")
        os.environ["LONGCONN_HISTORY_TTL"] = "2m"
        config = self.parsed(f"--config={path}", "--send-queue=1M").config
        settings = config.settings
        self.assertEqual((settings.history_size, settings.history_ttl, settings.send_queue), (5, 120, 2**20))

    def test_errors_are_one_line(self) -> None:
        self.assertEqual(self.refused("--max-mesage=1"), "unknown flag --max-mesage; did you mean --max-message?")
        self.assertEqual(self.refused("--zzz"), "unknown flag --zzz; --help lists them")
        self.assertEqual(self.refused("9999"), "unexpected argument '9999'; options start with --")
        self.assertEqual(self.refused("--locale=fr"), "flag --locale: 'fr' is not valid; allowed: en or zh")
        self.assertIn("requires argument", self.refused("--locale"))

    def test_version(self) -> None:
        self.assertEqual(self.printed("--version"), f"longconn {longconn.__version__}\n")

    def test_help_is_narrow_enough(self) -> None:
        os.environ["COLUMNS"] = "80"
        lines = self.printed("--help").splitlines()
        self.assertEqual([each for each in lines if len(each) > 90], [])
