"""The protocol that first bytes show."""

import time

from twisted.trial.unittest import SynchronousTestCase

from longconn.wire.first_bytes import Kind, detect

LIMIT = 1_000


class TableTests(SynchronousTestCase):
    def check(self, kind: Kind, *inputs: bytes) -> None:
        for data in inputs:
            with self.subTest(data=data[:40]):
                self.assertIs(detect(data, LIMIT), kind)

    def test_tls(self) -> None:
        self.check(Kind.TLS, b"\x16\x03", b"\x16\x03\x01\x02\x00\x01", b"\x16\x03\nabc")
        self.check(Kind.BINARY, b"\x16abc\n")

    def test_http2(self) -> None:
        self.check(Kind.HTTP2, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"PRI * HTTP/2.0\r\n", b"PRI * HTTP/2.0\n")
        self.check(Kind.HTTP1, b"PRI * HTTP/2.0 \n", b"\r\nPRI * HTTP/2.0\r\n")
        self.check(Kind.CHAT, b"PRI\n")

    def test_http1(self) -> None:
        self.check(
            Kind.HTTP1,
            b"GET / HTTP/1.1\r\n", b"POST /channels/a%20b?x=1 HTTP/1.0\r\nHost: x\r\n\r\n", b"OPTIONS * HTTP/1.1\r\n",
            b"GET http://localhost/ HTTP/1.1\n", b"CONNECT a:1 HTTP/1.1\r\n", b"M-SEARCH * HTTP/1.1\r\n",
            b"x!#$%&'*+.^_`|~ / HTTP/1.9\r\n", b"GET \xff HTTP/1.1\r\n",
        )  # fmt: skip

    def test_a_line_that_is_almost_a_request_is_no_chat(self) -> None:
        self.check(
            Kind.HTTP1,
            b"GET  / HTTP/1.1\r\n", b"GET / HTTP/1.1 \r\n", b" GET / HTTP/1.1\r\n", b"GET\t/\tHTTP/1.1\r\n",
            b"GET / HTTP/2.0\r\n", b"GET / HTTP/1.10\r\n", b"GET / HTTP/11\r\n", b"GET / HTTP/\r\n",
            b"GET / HTTP 1.1\r\n",
            b"get / http/1.1\r\n", b"GET / http/1.1\r\n", b"post /api/info HTTP/1.1\n", b"G(T / HTTP/1.1\r\n",
            b"GET /a b HTTP/1.1\r\n", b"GET a  HTTP/1.1\r\n", b"GET/ HTTP/1.1\r\n", b"GET / HTTP/1.1 please\n",
            b"GET / HTTP/1.1\r\r\n", b"\r\nGET / HTTP/1.1\r\n", b"\n\r\n\nGET  / HTTP/1.1\n", b"GET /\n",
            b"delete /x \r\n",
            b"POST https://localhost/api\r\n", b"OPTIONS *  HTTP/1.1\n", b"BREW  /pot HTTP/1.1\r\n",
            b"\xef\xbb\xbfGET / HTTP/1.1\r\n", b"\xef\xbb\xbf\xef\xbb\xbf get / HTTP/1.1\r\n", b"HTTP/1.1 200 OK\r\n",
        )  # fmt: skip

    def test_openings_of_other_protocols(self) -> None:
        for kind, lines in (
            (Kind.PROXY, (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2", b"PROXY UNKNOWN", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c")),
            (Kind.SSH, (b"SSH-2.0-OpenSSH_9.6",)),
            (
                Kind.RTSP,
                (
                    b"OPTIONS rtsp://a/b RTSP/1.0",
                    b"DESCRIBE  RTSP://a/b",
                    b"REGISTER sip:a SIP/2.0",
                    b"RTSP/1.0 200 OK",
                    b"SOURCE /music/sweet/music ICE/1.0",
                    b"ANNOUNCE  * MSRTP/2",
                ),
            ),
            (Kind.MAIL, (b"EHLO there", b"ehlo a.example", b"CAPA", b"APOP ann c4c9", b"AUTH PLAIN AGFubg==")),
            (Kind.MAIL, (b"a001 LOGIN ann secret", b". CAPABILITY", b"A1 AUTHENTICATE PLAIN")),
            (Kind.IRC, (b"CAP LS 302", b"PASS secret", b"NICK ann", b"USER ann", b"USER ann 0 * :Ann Bee")),
            (Kind.STOMP, (b"CONNECT", b"STOMP", b'CONNECT {"auth_token":"secret"}')),
            (Kind.REDIS, (b"*2", b"AUTH secret")),
            (Kind.XMPP, (b"<?xml version='1.0'?>", b"<stream:stream to='a'>")),
            (
                Kind.BINARY,
                (b"\5\1\0", b"\4\1\0\x50", b"\x10\x10\0\4MQTT", b"\x15\3\1", b"\0\0\0\x08", b"0\x0c\2\1\1`", b"h\0i\0"),
            ),
            (Kind.UTF16, (b"\xff\xfeh\0", b"\xfe\xff\0h", b"\xff\xfe")),
        ):
            self.check(kind, *(line + end for line in lines for end in (b"\n", b"\r\n")))

    def test_binary_data_needs_no_line_end(self) -> None:
        self.check(Kind.BINARY, b"\0", b"\5", b"\x10\x20")
        self.check(Kind.UTF16, b"\xff\xfe")

    def test_empty_lines_decide_nothing(self) -> None:
        self.check(Kind.EMPTY, b"\n", b"\r\n", b"\n\r\n\n")
        self.check(Kind.UNDECIDED, b"", b"\r", b"\r\nGET /")

    def test_anything_else_is_chat(self) -> None:
        self.check(
            Kind.CHAT,
            b"hello\n", b"GET\n", b"GET me a beer\n", b"get more\n", b"put it on the table\n",
            b"post about HTTP/2 soon\n",
            b"I like HTTP/1.1 a lot\n", b"hello\nGET / HTTP/1.1\r\n", b"\nhello\n", b"\xff\xfb\x22\n", b"ping\n",
            b"/who\n",
            b"we serve it over HTTP/2\n", b"see http://a.example/\n", b"// a comment\n", b"\x1b[A\n", b"a\tb\n",
            b"helo you\n",
            b"\xef\xbb\xbf/nick ann\n", b"nick is here\n", b"proxy servers are slow\n", b"ssh is down\n", b"connect\n",
            "你好\n".encode(),
        )  # fmt: skip

    def test_a_part_of_a_line_decides_nothing(self) -> None:
        for whole in (b"GET / HTTP/1.1\r\n", b"PRI * HTTP/2.0\r\n", b"hello there\n", b"ping\n"):
            for size in range(len(whole)):
                self.check(Kind.UNDECIDED, whole[:size])
        self.check(Kind.UNDECIDED, b"\x16", b"x" * LIMIT)

    def test_past_the_limit_a_line_without_an_end_is_chat(self) -> None:
        self.check(Kind.CHAT, b"x" * (LIMIT + 1), b"say /" + b"x" * LIMIT, b"getting /" + b"x" * LIMIT)

    def test_past_the_limit_the_start_of_another_protocol_is_no_chat(self) -> None:
        self.check(Kind.HTTP1, b"GET " + b"x" * LIMIT, b"\r\npost  /" + b"x" * LIMIT, b"GET /" + b"x" * LIMIT + b" is")
        self.check(Kind.CENTRIFUGO, b'{"connect":{"token":"' + b"x" * LIMIT, b"\xef\xbb\xbf [" + b"x" * LIMIT)
        self.check(Kind.BINARY, b"x" * LIMIT + b"\0")

    def test_past_the_limit_a_request_line_of_a_browser_is_a_request(self) -> None:
        line = b"POST /" + b"x" * LIMIT + b" HTTP/1.1\r\n"
        for size in range(LIMIT + 1, len(line)):
            self.check(Kind.HTTP1, line[:size])
        self.check(Kind.HTTP1, b"GET http://localhost/" + b"x" * LIMIT)

    def test_what_begins_as_json_is_of_the_structured_protocol(self) -> None:
        self.check(
            Kind.CENTRIFUGO,
            b'{"id":1,"connect":{}}\n', b' {"connect":{},"id":1}\r\nmore', b'{"id":1,"publish":{}}\n', b'{"connect"\n',
            b'{"connect":{}}\n', b"[1]\n", b'\r\n{"connect":{}}\n', b'\xef\xbb\xbf{"id":1,"connect":{}}\n', b"{ok}\n",
        )  # fmt: skip

    def test_in_pieces_the_answer_is_that_for_the_whole(self) -> None:
        wholes = (
            b"GET / HTTP/1.1\r\n", b"PRI * HTTP/2.0\r\n", b"hello there\n", b"\x16\x03\x01", b'{"id":1,"connect":{}}\n',
            b"x" * (LIMIT + 1), b"GET /" + b"x" * LIMIT, b"\xef\xbb\xbfhello\n", b"PROXY UNKNOWN\r\n", b"\xff\xfeh\0",
        )  # fmt: skip
        for whole in wholes:
            data, kinds = bytearray(), []
            for byte in whole:
                data.append(byte)
                kinds.append(detect(data, LIMIT, len(data) - 1))
            decided = next(index for index, kind in enumerate(kinds) if kind is not Kind.UNDECIDED)
            with self.subTest(data=whole[:40]):
                self.assertIs(kinds[decided], detect(bytes(data[: decided + 1]), LIMIT))
                self.assertIs(kinds[decided], detect(whole, LIMIT))

    def test_a_long_line_is_looked_at_in_linear_time(self) -> None:
        for part in (b" ", b"/", b"a ", b"GET ", b" HTTP/1.1", b"USER a ", b"\t/ "):
            line = b"GET " + part * (200_000 // len(part)) + b"!\n"
            began = time.process_time()
            detect(line, LIMIT)
            self.assertLess(time.process_time() - began, 1, part)
