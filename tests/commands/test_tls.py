"""The commands over TLS: --cafile, --cert and --key, on each scheme that they take."""

from typing import Any

from longconn import Data, Info
from longconn.cli import COMMANDS
from tests.commands.kit import Case, until
from tests.live.certificates import write_certificate

#: By command: the arguments, `{}` for the server, with the schemes that it takes; what is printed.
CONNECTIONS = ("tls", "wss", "https", "grpcs")
TABLE: dict[str, tuple[tuple[str, ...], tuple[str, ...], str]] = {
    "chat": (("-s", "{}", "lobby"), CONNECTIONS, ""),
    "sub": (("-s", "{}", "lobby"), CONNECTIONS, "ann: hello"),
    "pub": (("-s", "{}", "lobby", "hello"), CONNECTIONS, ""),
    "echo": (("-s", "{}", "--times=1"), ("tls", "wss"), "1: "),
    "get": (("{}/PrintHello",), ("https",), "hello word"),
    "probe": (("{}/PrintHello",), ("https",), "200"),
    "top": (("{}",), ("https",), "longconn 0"),
    "info": (("-s", "{}"), ("https",), "clients"),
    "channels": (("-s", "{}"), ("https",), "CHANNEL"),
    "disconnect": (("-s", "{}", "nobody"), ("https",), ""),
}
#: Commands without a connection of a client.
OTHERS = {"serve", "config", "cert", "completion", "man"}
#: The key of the server API, for those that need it.
KEY: dict[str, Any] = {"environ": {"LONGCONN_API_KEY": "a key"}}


class TLSTests(Case):
    def setUp(self) -> None:
        self.key, self.certificate = map(str, write_certificate(self.folder()))
        self.own_key, self.own_certificate = map(str, write_certificate(self.folder(), "ann"))
        self.serve(
            api_key="a key",
            tls_cert=(self.certificate,),
            tls_key=(self.key,),
            tls_only=True,
            tls_client_ca=self.own_certificate,
        )

    def test_every_command_is_here(self) -> None:
        self.assertEqual({*TABLE, *OTHERS}, {*COMMANDS})

    def arguments(self, command: str, scheme: str, *further: str) -> tuple[str, ...]:
        where = f"{scheme}://localhost:{self.port}"
        return (command, *(each.format(where) for each in TABLE[command][0]), *further)

    async def test_each_command(self) -> None:
        shown = (f"--cafile={self.certificate}", f"--cert={self.own_certificate}", f"--key={self.own_key}")
        for command, (_, schemes, printed) in TABLE.items():
            for scheme in schemes:
                options: dict[str, Any] = {"lines": [b"hi"]} if command == "chat" else KEY
                missing = "longconn: there is no user 'nobody' (404)\n"
                ended = (1, missing) if command == "disconnect" else (0, "")
                found = self.command(*self.arguments(command, scheme, *shown), **options)
                if command == "sub":
                    await until(lambda: self.hub.channels)
                    self.hub.publish("lobby", Data.of_text("hello"), Info("ann"), lambda result: None)
                    await found.prints(printed)
                    found.status.addErrback(lambda failure: None)
                    found.status.cancel()
                else:
                    self.assertEqual((await found.status, found.err.text), ended, (command, scheme))
                    self.assertIn(printed, found.out.text)
                await until(lambda: not self.hub.clients)

    async def test_what_does_not_do_is_one_line(self) -> None:
        for command, (_, schemes, _) in TABLE.items():
            for scheme in schemes:
                untrusted = self.arguments(command, scheme)
                await self.assert_one_line("the server's certificate is of nobody that is trusted", *untrusted, **KEY)
                alone = self.arguments(command, scheme, f"--cafile={self.certificate}")
                await self.assert_one_line("the server refuses the client's certificate, or wants one", *alone, **KEY)
            plain = "http" if schemes == ("https",) else "ws"
            for option in ("--cafile=x", "--cert=x", "--key=x"):
                arguments = self.arguments(command, plain, option)
                await self.assert_one_line(f"are for TLS, and {plain}:// is without it", *arguments, usage=True, **KEY)
            absent = self.arguments(command, schemes[0], "--cafile=/absent")
            await self.assert_one_line("/absent: No such file or directory", *absent, **KEY)
            await self.assert_one_line(
                "--key needs --cert", *self.arguments(command, schemes[0], "--key=x"), usage=True, **KEY
            )
