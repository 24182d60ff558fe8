"""The sources of values, their precedence, and values that are refused."""

import json
from pathlib import Path

from twisted.internet.testing import MemoryReactor
from twisted.trial.unittest import TestCase

from longconn.config import endpoints
from longconn.config.file import NAMES, load, to_toml
from longconn.core.errors import ConfigError
from longconn.core.namespaces import ChannelOptions, Namespaces
from longconn.core.settings import Settings


class Case(TestCase):
    def file(self, text: str) -> str:
        path = Path(self.mktemp())
        path.write_text(text, "utf-8")
        return str(path)

    def refused(self, *words: str, flags=(), environ=(), file=None) -> str:
        """The one line of the error, which contains all `words`."""
        error = self.assertRaises(ConfigError, load, dict(flags), dict(environ), file)
        line = str(error)
        self.assertNotIn("\n", line)
        for word in words:
            self.assertIn(word, line)
        return line


class PrecedenceTests(Case):
    def test_defaults(self) -> None:
        config = load({}, {})
        self.assertEqual(config.settings, Settings())
        self.assertEqual(set(config.sources.values()), {"default"})
        self.assertEqual(config.port, endpoints.default_ports())
        self.assertEqual((config.tcp, config.http), ((), ()))

    def test_flag_before_variable_before_file(self) -> None:
        file = self.file('max_message = 1000\nlocale = "zh"\nnames = "guest"\n')
        environ = {"LONGCONN_MAX_MESSAGE": "2000", "LONGCONN_LOCALE": "en", "LONGCONN_CONFIG": "/nowhere"}
        config = load({"max_message": "3000"}, environ, file)
        self.assertEqual(config.settings, Settings(max_message=3000, locale="en", names="guest"))
        self.assertEqual(config.sources["max_message"], "flag --max-message")
        self.assertEqual(config.sources["locale"], "environment LONGCONN_LOCALE")
        self.assertEqual(config.sources["names"], f"file {file} key names")
        self.assertEqual(config.sources["send_queue"], "default")

    def test_file_named_by_the_environment(self) -> None:
        config = load({}, {"LONGCONN_CONFIG": self.file("history_size = 7")})
        self.assertEqual(config.settings.history_size, 7)

    def test_a_list_replaces_a_list(self) -> None:
        file = self.file('allowed_origin = ["https://a.example", "https://b.example"]\nport = [1, "[::1]:2"]\ntcp = 3')
        config = load({}, {"LONGCONN_ALLOWED_ORIGIN": "null, https://c.example"}, file)
        self.assertEqual(config.settings.allowed_origin, ("null", "https://c.example"))
        self.assertEqual((config.port, config.tcp), (("1", "[::1]:2"), ("3",)))

    def test_a_port_of_any_option_replaces_the_default_ports(self) -> None:
        config = load({"tcp": ["7000"]}, {})
        self.assertEqual((config.port, config.tcp, config.http), ((), ("7000",), ()))

    def test_printed_configuration_reads_back_the_same(self) -> None:
        flags = {"max_message": "1MiB", "default_channel": 'raum "ü"'.replace(" ", "\\"), "http": ["unix:/a b"]}
        config = load({**flags, "allowed_host": ["chat.example"], "publish_rate": "0.5"}, {})
        text = to_toml(config)
        again = load({}, {}, self.file(text))
        for name in NAMES:
            self.assertEqual(again.value(name), config.value(name))
        self.assertIn("max_message = 1048576  # flag --max-message\n", text)
        self.assertIn('locale = "en"  # default\n', text)


class ValueTests(Case):
    def test_sizes(self) -> None:
        for text, size in (("65536", 65536), ("64KiB", 65536), ("64k", 65536), ("1MiB", 2**20), ("1M", 2**20),
                           ("1.5 MiB", 3 * 2**19), ("1G", 2**30), ("12B", 12)):  # fmt: skip
            self.assertEqual(load({"send_queue": text}, {}).settings.send_queue, size, text)

    def test_times(self) -> None:
        for text, seconds in (("25", 25), ("1.5", 1.5), ("300s", 300), ("5m", 300), ("1h", 3600), ("0", 0)):
            self.assertEqual(load({"idle_timeout": text}, {}).settings.idle_timeout, seconds, text)

    def test_literals_of_the_file(self) -> None:
        settings = load({}, {}, self.file('ping_interval = 2.5\nmax_body = "2MiB"\nmax_head = 1024')).settings
        self.assertEqual((settings.ping_interval, settings.max_body, settings.max_head), (2.5, 2**21, 1024))

    def test_bad_numbers(self) -> None:
        for text in ("", "x", "-1", "nan", "inf", "1e400", "1x", "٣", "1_", "0x10", "9" * 5000):
            self.refused("flag --idle-timeout: ", "allowed: seconds from 0", flags={"idle_timeout": text})
        self.refused("'0'", "allowed: bytes from 1", flags={"max_message": "0"})
        self.refused("'0.5'", "allowed: a whole number from 0", flags={"max_connections": "0.5"})
        for literal in ("nan", "inf", "-1", "true", "[1]", "{}", "1" + "0" * 400, "2020-01-01"):
            self.refused("key pong_timeout: ", "allowed: ", file=self.file(f"pong_timeout = {literal}"))

    def test_bad_choices(self) -> None:
        self.refused("environment LONGCONN_LOCALE: 'fr'", "en or zh", environ={"LONGCONN_LOCALE": "fr"})
        self.refused("key empty_line: 1", "leave or ignore", file=self.file("empty_line = 1"))

    def test_default_channel_is_a_channel(self) -> None:
        self.assertEqual(load({"default_channel": "ü" * 127}, {}).settings.default_channel, "ü" * 127)
        for name in ("", "a b", "a\nb", "a\u3000b", "\x7f", "ü" * 128, "\udc80"):
            self.refused("--default-channel", "1 to 255 bytes", flags={"default_channel": name})

    def test_origins(self) -> None:
        given = ["https://A.example/", "http://localhost:8000", "null", "*", "https://b.example:443", "http://[::1]:1"]
        expected = ("https://a.example", "http://localhost:8000", "null", "*", "https://b.example", "http://[::1]:1")
        self.assertEqual(load({"allowed_origin": given}, {}).settings.allowed_origin, expected)
        for text in ("example.org", "https://", "https://a.example/path", "https://*.example", "//a", ""):
            self.refused("--allowed-origin", "allowed: https://example.org", flags={"allowed_origin": [text]})

    def test_origins_without_a_host(self) -> None:
        given = ["file://", "FILE:///", "app://", "capacitor://localhost", "app://-"]
        expected = ("file://", "file://", "app://", "capacitor://localhost", "app://-")
        self.assertEqual(load({"allowed_origin": given}, {}).settings.allowed_origin, expected)
        for text in ("http://", "file:", "file:/", "file:////", "://"):
            self.refused("--allowed-origin", "allowed: https://example.org", flags={"allowed_origin": [text]})

    def test_hosts(self) -> None:
        self.assertEqual(load({"allowed_host": ["Chat.Example"]}, {}).settings.allowed_host, ("chat.example",))
        for text in ("https://chat.example", "chat.example:80", ""):
            self.refused("--allowed-host", "allowed: a host name", flags={"allowed_host": [text]})


class SourceTests(Case):
    def test_unknown_keys_name_the_nearest(self) -> None:
        path = self.file("max_mesage = 1")
        self.refused(f"file {path}: unknown key 'max_mesage'; did you mean max_message?", file=path)
        self.refused("did you mean max_message?", file=self.file("max-message = 1"))
        self.refused("unknown table [server]; there are ", "[hooks]", file=self.file("[server]\nport = 1"))

    def test_unknown_tables_name_the_nearest(self) -> None:
        for text, hint in (
            ("[namespace.news]\nhistory_size = 1", "unknown table [namespace.news]; did you mean [namespaces.news]?"),
            ("[Namespaces]", "unknown table [Namespaces]; did you mean [namespaces.NAME]?"),
            ("namespace = 1", "unknown key 'namespace'; did you mean a table [namespaces.NAME]?"),
            ("[channels.news]", "did you mean [namespaces.news]?"),
            ("[channel]\nhistory_size = 1", "did you mean [channel_without_namespace]?"),
            ("[hook]", "did you mean [hooks]?"),
            ("[namespaces]\nhistory_size = 1", "stands in a table [namespaces.NAME] or [channel_without_namespace]"),
        ):
            self.refused(hint, file=self.file(text))

    def test_a_port_that_is_given_twice(self) -> None:
        for first, second in (
            ("9998", "9998"),
            ("9998", "127.0.0.1:9998"),
            ("tcp:9998:interface=0.0.0.0", ":9998"),
            ("localhost:9998", "127.0.0.1:9998"),
            ("haproxy:9998", "9998"),
            ("[::]:9998", "[::1]:9998"),
            ("unix:/tmp/x", "unix:/tmp/x"),
        ):
            line = f"flag --tcp: '{second}' is the same port as '{first}' of --port"
            self.refused(line, flags={"port": [first], "tcp": [second]})
        self.refused("'1' is the same port as '1' of --port", environ={"LONGCONN_PORT": "1,1"})
        self.refused("flag --admin: '9999' is the same port as '127.0.0.1:9999' of --port", flags={"admin": ["9999"]})
        for first, second in (
            ("9998", "9997"),
            ("0", "0"),
            ("127.0.0.1:9998", "127.0.0.2:9998"),
            ("9998", "[::1]:9998"),
            ("unix:/tmp/x", "unix:/tmp/y"),
        ):
            load({"port": [first], "tcp": [second]}, {})

    def test_endpoints_behind_a_proxy(self) -> None:
        for text in ("haproxy:9998", "haproxy:127.0.0.1:9998", "HAPROXY:tcp:9998", "haproxy:unix:/tmp/x"):
            self.assertEqual(load({"port": [text]}, {}).port, (text,))
        for text, hint in (
            ("haproxy", "haproxy: stands once, before another one"),
            ("haproxy:haproxy:9998", "haproxy: stands once, before another one"),
            ("haproxy:foo:9998", "there is no endpoint 'foo'; allowed"),
            ("haproxy:tcp:x", "a port is a number from 0 to 65535"),
            ("haprxy:tcp:9998", "there is no endpoint 'haprxy'; did you mean haproxy?"),
        ):
            self.refused(hint, flags={"port": [text]})

    def test_unknown_variables_name_the_nearest(self) -> None:
        line = self.refused("environment: unknown variable 'LONGCONN_PROT'", environ={"LONGCONN_PROT": "1"})
        self.assertIn("did you mean LONGCONN_PORT?", line)

    def test_variables_that_are_not_options(self) -> None:
        links = {"LONGCONN_SERVICE_HOST": "10.0.0.1", "LONGCONN_SERVICE_PORT_WEB": "1", "LONGCONN_PORT_9999_TCP": "x",
                 "LONGCONN_PORT": "tcp://10.0.0.1:9999"}  # fmt: skip
        others = {
            "LONGCONN_URL": "tcp://a:1",
            "LONGCONN_TOKEN": "x.y.z",
            "LONGCONN_PASSWORD": "x",
            "LONGCONN_CONFIG": "",
            "LONGCONN_LOCALE": "",
        }
        config = load({}, {**others, **links})
        self.assertEqual(set(config.sources.values()), {"default"})

    def test_files_that_cannot_be_read(self) -> None:
        self.refused("flag --config: cannot read '/nowhere/x'", "No such file", file="/nowhere/x")
        self.refused("environment LONGCONN_CONFIG: cannot read", environ={"LONGCONN_CONFIG": "/"})
        self.refused("not TOML", "line 2", file=self.file("\nport = x"))
        path = self.file("")
        Path(path).write_bytes(b"locale = '\xff'")
        self.refused("not TOML", file=path)


class ChannelTests(Case):
    """The tables of channel options, and options that are checked against them."""

    FILE = """
        history_size = 9
        [channel_without_namespace]
        join_leave = false
        [namespaces.news]
        history_ttl = "1h"
        history_size = 0
        allow_publish_for_client = false
        [namespaces."räume"]
        [namespaces.chat]
        allow_user_limited_channels = true
    """

    def test_tables(self) -> None:
        file = self.file(self.FILE)
        config = load({}, {}, file)
        self.assertEqual(
            config.settings.namespaces,
            Namespaces(
                ChannelOptions(join_leave=False),
                {
                    "news": ChannelOptions(history_ttl=3600, history_size=0, allow_publish_for_client=False),
                    "räume": ChannelOptions(),
                    "chat": ChannelOptions(allow_user_limited_channels=True),
                },
            ),
        )
        self.assertEqual(config.settings.history_size, 9)
        self.assertEqual(config.sources["namespaces.news.history_ttl"], f"file {file} key namespaces.news.history_ttl")

    def test_printed_tables_read_back_the_same(self) -> None:
        file = self.file(self.FILE)
        config = load({}, {}, file)
        text = to_toml(config)
        self.assertEqual(load({}, {}, self.file(text)).settings, config.settings)
        self.assertIn(f"\n[namespaces.news]\nhistory_size = 0  # file {file} key namespaces.news.history_size\n", text)
        self.assertIn("\n# allow_user_limited_channels is not set  # default\n", text)
        self.assertIn('\n[namespaces."räume"]\n', text)
        self.assertNotIn("\n[", to_toml(load({}, {})))

    def test_names_that_need_quotes_read_back_the_same(self) -> None:
        for name in ("a.b", 'a"b', "a\\b", "ü", "[x]", "a=b", "x" * 255):
            config = load({}, {}, self.file(f"[namespaces.{json.dumps(name)}]\npresence = false"))
            self.assertEqual(config.settings.namespaces.named, {name: ChannelOptions(presence=False)})
            self.assertEqual(load({}, {}, self.file(to_toml(config))).settings, config.settings)

    def test_bad_tables(self) -> None:
        for text, *words in (
            ("[namespaces.a]\nhistory_sise = 1", "unknown key 'namespaces.a.history_sise'; did you mean history_size?"),
            ("[channel_without_namespace]\nname = 1", "unknown key 'channel_without_namespace.name'"),
            ("[namespaces.a]\nhistory_size = -1", "key namespaces.a.history_size: -1", "a whole number from 0"),
            ("[namespaces.a]\nhistory_ttl = 'x'", "key namespaces.a.history_ttl: 'x'", "seconds from 0"),
            ("[namespaces.a]\npresence = 'no'", "key namespaces.a.presence: 'no'", "true or false"),
            ("[namespaces.a]\npresence = 1", "key namespaces.a.presence: 1", "true or false"),
            ("[namespaces.a.b]\npresence = true", "unknown key 'namespaces.a.b'"),
            ("namespaces = 1", "key namespaces: 1 is no table"),
            ("[[namespaces]]\nname = 'a'", "key namespaces: [{'name': 'a'}] is no table; allowed: [namespaces.NAME]"),
            ("namespaces.a = 1", "key namespaces.a: 1 is no table"),
            ("channel_without_namespace = true", "key channel_without_namespace: True is no table"),
            ("[namespaces.'a:b']", "'a:b' is not valid", "without : and #"),
            ("[namespaces.'a#b']", "'a#b' is not valid"),
            ("[namespaces.'a b']", "'a b' is not valid"),
            ("[namespaces.'']", "'' is not valid"),
        ):
            self.refused("file ", *words, file=self.file(text))

    def test_the_environment_cannot_set_them(self) -> None:
        self.refused("unknown variable", environ={"LONGCONN_NAMESPACES": "x"})

    def test_channels_in_other_options_must_exist(self) -> None:
        file = self.file("[namespaces.chat]\n[namespaces.news]")
        line = self.refused(
            "flag --default-channel: 'caht' is no namespace", file=file, flags={"default_channel": "caht:a"}
        )
        self.assertIn("there are chat, news", line)
        load({"default_channel": "chat:a"}, {}, file)
        load({"default_channel": "caht:a"}, {})
        own = {"user_personal_channel_namespace": "own"}
        self.refused("--user-personal-channel-namespace: 'own' is no namespace", file=file, flags=own)
        self.refused("'own' is no namespace; the file defines none", flags=own)

    def test_personal_channels_are_for_their_users(self) -> None:
        on, key = {"user_personal_channel": "on"}, {"token_hmac_secret_key": "x" * 64}
        self.refused("flag --user-personal-channel: channels as #ID need a token key", flags=on)
        self.assertTrue(load({**on, **key}, {}).settings.user_personal_channel)
        off = "[channel_without_namespace]\nallow_user_limited_channels = false\n[namespaces.own]"
        self.refused("channels as #ID", "allow_user_limited_channels", flags={**on, **key}, file=self.file(off))
        load({**on, **key, "user_personal_channel_namespace": "own"}, {}, self.file(off))


class TokenTests(Case):
    def test_booleans(self) -> None:
        for text, value in (("true", True), ("Yes", True), ("1", True), ("on", True), ("false", False), ("NO", False),
                            ("0", False), ("off", False)):  # fmt: skip
            flags = {"user_personal_channel": text, "token_hmac_secret_key": "x" * 64}
            self.assertIs(load(flags, {}).settings.user_personal_channel, value)
        for text in ("", "x", "2", "truefalse"):
            self.refused("'", "allowed: true or false", flags={"user_personal_channel": text})
        self.refused("key user_personal_channel: 1", file=self.file("user_personal_channel = 1"))

    def test_secrets_are_never_printed(self) -> None:
        config = load({}, {"LONGCONN_TOKEN_HMAC_SECRET_KEY": "hush " * 13})
        self.assertEqual(config.settings.token_hmac_secret_key, "hush " * 13)
        self.assertNotIn("hush", to_toml(config) + repr(config))
        line = "# token_hmac_secret_key is set, and not shown  # environment LONGCONN_TOKEN_HMAC_SECRET_KEY\n"
        self.assertIn(line, to_toml(config))
        self.assertIn('token_hmac_secret_key = ""  # default\n', to_toml(load({}, {})))
        line = self.refused("key token_hmac_secret_key: not valid", file=self.file("token_hmac_secret_key = 31337"))
        self.assertNotIn("31337", line)

    def test_bad_keys(self) -> None:
        self.refused("token_rsa_public_key: neither PEM nor a file", flags={"token_rsa_public_key": "/nowhere"})


class ListeningTests(Case):
    def listened(self, text: str) -> tuple[int, str, int]:
        """Port, interface and backlog with which a listening string listens."""
        reactor = MemoryReactor()
        endpoints.server_endpoint(reactor, text).endpoint.listen(object())
        port, _, backlog, interface = reactor.tcpServers[0]
        return port, interface, backlog

    def test_short_forms(self) -> None:
        for text, expected in (
            ("9999", (9999, "", 4096)),
            (":9999", (9999, "", 4096)),
            ("127.0.0.1:0", (0, "127.0.0.1", 4096)),
            ("localhost:1", (1, "127.0.0.1", 4096)),
            ("[::1]:80", (80, "::1", 4096)),
        ):
            self.assertEqual(self.listened(text), expected)

    def test_a_backlog_that_is_named_stays(self) -> None:
        for text, expected in (
            ("tcp:1:backlog=5", (1, "", 5)),
            ("tcp:1:127.0.0.1:5", (1, "127.0.0.1", 5)),
            ("tcp:backlog=5:port=1", (1, "", 5)),
            ("tcp:1:127.0.0.1", (1, "127.0.0.1", 4096)),
            ("tcp:port=1:interface=\\:\\:1", (1, "::1", 4096)),
        ):
            self.assertEqual(self.listened(text), expected)

    def test_unix(self) -> None:
        reactor = MemoryReactor()
        parsed = endpoints.server_endpoint(reactor, "unix:/tmp/a\\:b:mode=600")
        self.assertEqual(parsed.kind, "unix")
        parsed.endpoint.listen(object())
        address, _, backlog, mode, _ = reactor.unixServers[0]
        self.assertEqual((address, backlog, mode), ("/tmp/a:b", 4096, 0o600))

    def test_bad_listening_strings(self) -> None:
        for text, word in (
            ("70000", "from 0 to 65535"),
            ("tcp:70000", "from 0 to 65535"),
            ("tcp:port=x", "from 0 to 65535"),
            ("tcp6:70000", "from 0 to 65535"),
            ("tcp:-1", "from 0 to 65535"),
            ("123456", "from 0 to 65535"),
            ("tcp", "from 0 to 65535"),
            ("300.1.1.1:1", "no IPv4 address"),
            ("[::g]:1", "no IPv6 address"),
            ("example.org:80", "no endpoint 'example.org'"),
            ("", "no endpoint ''"),
            ("tcp:1:interface=a\\", "a backslash at the end"),
            ("stdio:", "no port"),
            ("tcp:1:colour=red", "'colour'"),
            ("unix", "'address'"),
            ("ssl:1:privateKey=/nowhere.pem", "No such file or directory: /nowhere.pem"),
            ("systemd:domain=INET:name=web", "'web'"),
        ):
            self.refused("flag --http: ", word, flags={"http": [text]})
        self.refused("key port: 1.5", "list of strings", file=self.file("port = 1.5"))
        self.refused("key port: True", file=self.file("port = [true]"))
        self.refused("LONGCONN_TCP: 'b:1'", environ={"LONGCONN_TCP": "1,b:1"})

    def test_a_failure_is_one_line(self) -> None:
        for text, error, line in (
            ("80", PermissionError(13, "Permission denied"), "a port below 1024 needs root or CAP_NET_BIND_SERVICE"),
            ("192.0.2.1:1", OSError(99, "Cannot assign requested address"), "this machine has no such address"),
            ("unix:/nowhere/x", FileNotFoundError(2, "No such file or directory"), "No such file or directory"),
            ("x", ValueError("two\nlines"), "cannot listen on x: two lines"),
        ):
            self.assertIn(line, endpoints.failure(text, error))
