"""The rules for the header fields of a request."""

from twisted.trial.unittest import SynchronousTestCase

from longconn.wire.http2_fields import HeaderError, check_request, check_trailers, content_length

REQUEST = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/a/B"), (b":authority", b"localhost")]


class FieldTests(SynchronousTestCase):
    def test_allowed_fields(self) -> None:
        check_request([*REQUEST, (b"te", b"trailers"), (b"te", b"Trailers"), (b"x-a_b.c!~", b"any \t value \xff")])
        check_request([*REQUEST, (b"host", b"elsewhere"), (b"x", b"")])
        check_trailers([(b"x", b"y"), (b"x", b"z")])
        check_trailers([])

    def test_an_authority_is_optional(self) -> None:
        """`doc/PROTOCOL-HTTP2.md` in grpc/grpc, "Requests"."""
        check_request(REQUEST[:3])

    def test_white_space_around_a_value_is_allowed(self) -> None:
        """grpcio sends it, and the reader of the value removes it ("Custom-Metadata")."""
        check_request([*REQUEST, (b"x", b" a\t")])

    def test_names_and_values_that_are_not_allowed(self) -> None:
        for field in (
            (b"X-A", b"b"), (b"", b"b"), (b"x a", b"b"), (b"x:a", b"b"), (b"x\x7f", b"b"), (b"x\xe4", b"b"),
            (b"x\0", b"b"), (b"x", b"a\0b"), (b"x", b"a\nb"), (b"x", b"a\rb"), (b"te", b"trailers, deflate"),
            (b"connection", b"close"), (b"keep-alive", b"1"), (b"proxy-connection", b"1"),
            (b"transfer-encoding", b"chunked"), (b"upgrade", b"h2c"),
        ):  # fmt: skip
            with self.assertRaises(HeaderError, msg=field):
                check_request([*REQUEST, field])
            with self.assertRaises(HeaderError, msg=field):
                check_trailers([field])

    def test_pseudo_headers_that_are_not_allowed(self) -> None:
        for fields in (
            REQUEST[1:], [REQUEST[0], *REQUEST[2:]], [*REQUEST[:2], REQUEST[3]], [*REQUEST[:2], (b":path", b"")], [],
            [*REQUEST, REQUEST[0]], [*REQUEST, REQUEST[3]], [*REQUEST, (b":status", b"200")],
            [*REQUEST, (b":test", b"1")], [*REQUEST[:3], (b"x", b"y"), REQUEST[3]],
        ):  # fmt: skip
            with self.assertRaises(HeaderError, msg=fields):
                check_request(fields)
        with self.assertRaises(HeaderError):
            check_trailers([(b"x", b"y"), (b":path", b"/")])

    def test_content_length(self) -> None:
        for values, number in (([], None), ([b"0"], 0), ([b"007"], 7), ([b"42", b" 42\t"], 42)):
            self.assertEqual(content_length(values), number)
        for wrong in ([b""], [b"-1"], [b"+1"], [b"1_0"], [b"1", b"2"], [b"x"], [b"\xb2"], [b"1" * 9_000]):
            with self.assertRaises(HeaderError, msg=wrong):
                content_length(wrong)
