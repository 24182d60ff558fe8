"""The protocol that first bytes show."""

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
        self.check(Kind.CHAT, b"\x16abc\n")

    def test_http2(self) -> None:
        self.check(Kind.HTTP2, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"PRI * HTTP/2.0\r\n", b"PRI * HTTP/2.0\n")
        self.check(Kind.CHAT, b"PRI * HTTP/2.0 \n", b"PRI\n")

    def test_http1(self) -> None:
        self.check(
            Kind.HTTP1,
            b"GET / HTTP/1.1\r\n", b"POST /channels/a%20b?x=1 HTTP/1.0\r\nHost: x\r\n\r\n", b"OPTIONS * HTTP/1.1\r\n",
            b"GET http://localhost/ HTTP/1.1\n", b"CONNECT a:1 HTTP/1.1\r\n", b"M-SEARCH * HTTP/1.1\r\n",
            b"x!#$%&'*+.^_`|~ / HTTP/1.9\r\n", b"GET \xff HTTP/1.1\r\n",
        )  # fmt: skip

    def test_anything_else_is_chat(self) -> None:
        self.check(
            Kind.CHAT,
            b"\n", b"\r\n", b"hello\n", b"GET\n", b"GET /\n", b"GET / HTTP/1.1 please\n", b" GET / HTTP/1.1\r\n",
            b"GET  / HTTP/1.1\r\n", b"GET / HTTP/2.0\r\n", b"GET / http/1.1\r\n", b"G(T / HTTP/1.1\r\n", b"\x00\n",
            b"hello\nGET / HTTP/1.1\r\n", b"\nGET / HTTP/1.1\r\n", b"\xff\xfe\n", b"ping\n", b"/who\n",
            b"GET / HTTP/1.1\r\r\n",
        )  # fmt: skip

    def test_a_part_of_a_line_decides_nothing(self) -> None:
        for whole in (b"GET / HTTP/1.1\r\n", b"PRI * HTTP/2.0\r\n", b"hello there\n", b"ping\n"):
            for size in range(len(whole)):
                self.check(Kind.UNDECIDED, whole[:size])
        self.check(Kind.UNDECIDED, b"\x16", b"x" * LIMIT)

    def test_past_the_limit_a_line_without_an_end_is_chat(self) -> None:
        self.check(Kind.CHAT, b"x" * (LIMIT + 1), b"GET " + b"x" * LIMIT, b"say /" + b"x" * LIMIT)
        self.check(Kind.CHAT, b"GET /" + b"x" * LIMIT + b" is", b"GET /" + b"x" * LIMIT + b" HTTP/1.1\rx")

    def test_past_the_limit_a_request_line_of_a_browser_is_a_request(self) -> None:
        line = b"POST /" + b"x" * LIMIT + b" HTTP/1.1\r\n"
        for size in range(LIMIT + 1, len(line)):
            self.check(Kind.HTTP1, line[:size])
        self.check(Kind.HTTP1, b"GET http://localhost/" + b"x" * LIMIT)

    def test_centrifugo(self) -> None:
        self.check(Kind.CENTRIFUGO, b'{"id":1,"connect":{}}\n', b' {"connect":{},"id":1}\r\nmore')
        self.check(Kind.CHAT, b'{"id":1,"publish":{}}\n', b'{"connect"\n')

    def test_in_pieces_the_answer_is_that_for_the_whole(self) -> None:
        wholes = (
            b"GET / HTTP/1.1\r\n", b"PRI * HTTP/2.0\r\n", b"hello there\n", b"\x16\x03\x01", b'{"id":1,"connect":{}}\n',
            b"x" * (LIMIT + 1), b"GET /" + b"x" * LIMIT,
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
