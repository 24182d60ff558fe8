"""Data: a JSON value, kept as it was written."""

import json

from longconn.core.publication import Data
from tests.core.common import Case


class TextTests(Case):
    def test_a_chat_line_is_a_json_string(self) -> None:
        data = Data.of_text('say "hé"')
        self.assertEqual(data.text, 'say "hé"')
        self.assertEqual(json.loads(data.json), 'say "hé"')
        self.assertEqual(data.size, len('say "hé"'.encode()))

    def test_a_lone_surrogate_has_no_form_in_utf8(self) -> None:
        self.refused("bad_data", Data.of_text, "a\ud800")
        self.refused("bad_data", Data.of_json, rb'"a\ud800"')

    def test_a_json_string_is_text(self) -> None:
        self.assertEqual(Data.of_json(rb' "a\u00e9\ud83d\ude00\n" ').text, "aé😀\n")


class JSONTests(Case):
    def test_a_byte_order_mark_before_a_value_counts_as_nothing(self) -> None:
        bom = b"\xef\xbb\xbf"
        for written, kept in ((b'{"a":1}', b'{"a":1}'), (b' "text"', b'"text"'), (b"[ 1 ]\n", b"[1]")):
            data = Data.of_json(b" " + bom + written)
            self.assertEqual((data.json, data.size), (kept, len(kept)))
        for written in (bom, bom * 2 + b"1", bom * 5000 + b"1", b"1" + bom, b'{"a":' + bom + b"1}"):
            self.refused("bad_data", Data.of_json, written)

    def test_values_are_kept_as_they_were_written(self) -> None:
        for written in (
            b"1",
            b"-0",
            b"1.50",
            b"1E400",
            b"12345678901234567890.123",
            b"true",
            b"null",
            b"[]",
            b'{"b":1,"a":2,"b":3}',
        ):
            with self.subTest(written=written):
                data = Data.of_json(written)
                self.assertEqual((data.json, data.text, data.size), (written, None, len(written)))

    def test_only_space_between_tokens_goes(self) -> None:
        data = Data.of_json(' { "a b" : [ 1 ,\n\t2 ] , "c\\" d" : " x " } \r\n')
        self.assertEqual(data.json, b'{"a b":[1,2],"c\\" d":" x "}')

    def test_escapes_within_stay(self) -> None:
        self.assertEqual(Data.of_json(rb'["\u00e9\\", "\/"]').json, rb'["\u00e9\\","\/"]')

    def test_the_form_has_no_line_end(self) -> None:
        self.assertNotIn(b"\n", Data.of_json(b'{"a":\n"b\\nc"}').json)

    def test_a_number_of_a_million_digits_costs_no_time_and_loses_nothing(self) -> None:
        digits = b"9" * 1_000_000
        self.assertEqual(Data.of_json(digits).json, digits)

    def test_what_is_no_json(self) -> None:
        bad = (
            b"",
            b" ",
            b"{",
            b"[1,]",
            b"01",
            b"nan",
            b"NaN",
            b"Infinity",
            b"-Infinity",
            b"[NaN]",
            b"'a'",
            b'"\n"',
            b'"\xff"',
            b"1 2",
        )
        for written in bad:
            with self.subTest(written=written):
                self.refused("bad_data", Data.of_json, written)

    def test_nesting_has_a_fixed_limit_that_strings_and_width_do_not_touch(self) -> None:
        for text in (b"[" * 500 + b"]" * 500, b'{"a":[' * 250 + b"]}" * 250, b"[" + b"[],{}," * 1000 + b'"[[{\\"["]'):
            self.assertEqual(Data.of_json(text).json, text)
        for text in (
            b"[" * 501 + b"]" * 501,
            b'[{"]}":' * 250 + b"[]" + b"}]" * 250,
            b"[[]," + b"[" * 500 + b"]" * 501,
        ):
            self.refused("bad_data", Data.of_json, text)

    def test_nesting_of_a_mebibyte_is_refused_and_not_a_crash(self) -> None:
        for opening in (b"[", b'{"a":'):
            self.refused("bad_data", Data.of_json, opening * (1024 * 1024 // len(opening)))
        self.refused("bad_data", Data.of_json, b"[" * 524_288 + b"]" * 524_288)
