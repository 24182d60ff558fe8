"""Typed reading of JSON, and the errors that it raises."""

from typing import Annotated

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from longconn.core.json_text import JSONError, LoneSurrogateError, MalformedJSONError, WrongTypeError, read


class Body(msgspec.Struct):
    channel: str | None = None
    limit: Annotated[int, msgspec.Meta(ge=-1, le=9)] | None = None
    reverse: bool | None = None
    data: msgspec.Raw = msgspec.Raw()
    subs: dict[str, msgspec.Raw] | None = None
    names: list[str] | None = None


BODY = msgspec.json.Decoder(Body)
ANY = msgspec.json.Decoder(msgspec.Raw)


class ReadTests(SynchronousTestCase):
    def refused(self, text: bytes, kind: type[JSONError]) -> JSONError:
        error: JSONError = self.assertRaises(kind, read, BODY, text)
        self.assertIs(type(error), kind)
        self.assertNotIn("\n", str(error))
        return error

    def test_raw_members_are_kept_as_written(self) -> None:
        for data in (b"1.50", b"1e999", b"9" * 5_000, b'{"a": 1, "a":2}', b'"\\u00e9"', b"null", '[ "é" ]'.encode()):
            self.assertEqual(bytes(read(BODY, b'{"data": %b}' % data).data), data)

    def test_text_that_is_not_json(self) -> None:
        for text in (b"", b"{", b"{}x", b'{"data":NaN}', b'{"data":01}', b'{"data":"\xff"}', b'{"x":"\xff"}', b'{"a"}'):
            self.refused(text, MalformedJSONError)
        for depth in (1_100, 100_000):
            self.refused(b'{"data":' + b"[" * depth + b"]" * depth + b"}", MalformedJSONError)

    def test_members_of_a_wrong_type(self) -> None:
        for text, why in (
            (b'{"channel":1}', "channel is no string"),
            (b'{"limit":1.5}', "limit is no whole number"),
            (b'{"limit":true}', "limit is no whole number"),
            (b'{"limit":-2}', "limit is no number from -1"),
            (b'{"limit":10}', "limit is no number up to 9"),
            (b'{"reverse":0}', "reverse is neither true nor false"),
            (b'{"subs":[]}', "subs is no object"),
            (b'{"names":{}}', "names is no array"),
            (b'{"names":["a",1]}', "names[1] is no string"),
            (b"[]", "the value is no object"),
        ):
            self.assertEqual(str(self.refused(text, WrongTypeError)), why)

    def test_half_of_a_surrogate_pair(self) -> None:
        for text, repaired in (
            (rb'{"channel":"a\ud800"}', rb'{"channel":"a\u0000"}'),
            (rb'{"channel":"\uDC00b"}', rb'{"channel":"\u0000b"}'),
            (
                rb'{"data":["\\ud800 \ud83d\ude00","\ud83d\ud83d\ude00"]}',
                rb'{"data":["\\ud800 \ud83d\ude00","\u0000\ud83d\ude00"]}',
            ),
        ):
            error = self.assertRaises(LoneSurrogateError, read, ANY, text)
            self.assertEqual(error.repaired, repaired)
            read(ANY, repaired)
        self.assertEqual(read(BODY, rb'{"channel":"\ud83d\ude00 \\ud800"}').channel, "😀 \\ud800")

    def test_what_else_is_wrong_beside_half_of_a_pair_goes_first(self) -> None:
        """Else the repaired text would raise where nothing is expected any more."""
        for text in (rb'{"a":"\ud800"', rb'"\ud800" x'):
            error = self.assertRaises(MalformedJSONError, read, ANY, text)
            self.assertNotIsInstance(error, LoneSurrogateError)
        self.assertRaises(WrongTypeError, read, msgspec.json.Decoder(list[int]), rb'["\ud800"]')
