"""Chat lines: what each asks for, and the exact lines for each event."""

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from longconn.core.publication import Counts, Data, Event, Info, Join, Leave, Publication, Rename
from longconn.wire.chat import ChatFormat, crlf, parse, safe
from longconn.wire.chat_texts import CATALOGUES, EN, ZH
from longconn.wire.websocket import text_frames

ADA, BO = Info("ada"), Info("bo")


def said(value: Any, info: Info = ADA) -> Publication:
    data = Data.of_text(value) if isinstance(value, str) else Data.of_json(value)
    return Publication("room", "epoch", 1, data, info, 0.0)


def lines(*events: Event, texts: Any = EN) -> list[str]:
    written = ChatFormat(texts, crlf).encode("room", events).decode()
    return written.split("\r\n")[:-1] if written else []


class ParseTests(SynchronousTestCase):
    def test_a_line_gives_a_verb_and_an_argument(self) -> None:
        cases = {
            "hello": ("say", "hello"), "": ("leave", ""), "ping": ("ping", ""), "pingping": ("say", "pingping"),
            "Ping": ("say", "Ping"), " ": ("say", " "), "//me": ("say", "/me"), "///": ("say", "//"),
            "/nick ada": ("nick", "ada"), "/nick": ("nick", ""), "/join  a:b ": ("join", "a:b"), "/who": ("who", ""),
            "/history 5": ("history", "5"), '/json {"a": 1}': ("json", '{"a": 1}'), "/quit": ("quit", ""),
            "/": ("unknown", "/"), "/foo bar": ("unknown", "/foo"), "/Nick ada": ("unknown", "/Nick"),
            "/leave": ("unknown", "/leave"), "/say x": ("unknown", "/say"), " /who": ("say", " /who"),
        }  # fmt: skip
        for line, meaning in cases.items():
            with self.subTest(line=line):
                self.assertEqual(parse(line), meaning)


class EnglishTests(SynchronousTestCase):
    def test_exact_lines(self) -> None:
        events = (Join(ADA), said("hi there"), Rename("bo", Info("bob")), Leave(BO))
        self.assertEqual(lines(*events), ["* ada joined", "ada: hi there", "* bo is now bob", "* bo left"])

    def test_counts(self) -> None:
        self.assertEqual(
            lines(Counts(37, 2), Counts(1, 0), Counts(0, 5)), ["* 37 joined, 2 left", "* 1 joined", "* 5 left"]
        )

    def test_data_that_is_no_string_is_written_as_compact_json(self) -> None:
        self.assertEqual(lines(said(b'{"a": [1, 2]}'), said(b"1.50")), ['ada: {"a":[1,2]}', "ada: 1.50"])


class ChineseTests(SynchronousTestCase):
    def test_exact_lines(self) -> None:
        events = (Join(ADA), said("hi there"), Leave(ADA))
        self.assertEqual(lines(*events, texts=ZH), ["ada进入房间", "ada说:hi there", "ada离开了房间"])

    def test_all_texts_are_chinese(self) -> None:
        catalogue = vars(ZH)
        self.assertEqual(catalogue.keys(), vars(EN).keys())
        same = {key for key in catalogue if catalogue[key] == vars(EN)[key]}
        self.assertEqual(same, {"counts"})  # punctuation alone
        for key, value in catalogue.items():
            for text in value if isinstance(value, tuple) else value.values() if isinstance(value, dict) else (value,):
                self.assertTrue(key == "counts" or any("\u4e00" <= each <= "\u9fff" for each in text), f"{key}: {text}")

    def test_both_fill_the_same_blanks(self) -> None:
        def blanks(text: str) -> set[str]:
            return {part.partition("}")[0] for part in text.split("{")[1:]}

        for key, value in vars(EN).items():
            if isinstance(value, str):
                self.assertEqual(blanks(value), blanks(getattr(ZH, key)), key)

    def test_the_catalogues_are_those_of_the_option(self) -> None:
        self.assertEqual(set(CATALOGUES), {"en", "zh"})


class SafeTests(SynchronousTestCase):
    def test_control_characters_are_replaced(self) -> None:
        bad = [*range(0x09), *range(0x0A, 0x20), *range(0x7F, 0xA0), 0x2028, 0x2029]
        bad += [0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)]  # bidi
        for code in bad:
            with self.subTest(code=hex(code)):
                self.assertEqual(safe(f"a{chr(code)}b"), "a\ufffdb")

    def test_other_characters_stay(self) -> None:
        for text in ("a\tb", "é", "房间", "😀", "👨\u200d👩\u200d👧", "a\u00a0b", "\ufffd", "\ufeff", "\U000e0020"):
            self.assertEqual(safe(text), text)

    def test_an_escape_in_text_or_name_does_not_reach_a_terminal(self) -> None:
        self.assertEqual(lines(said("\x1b[2J\x9b31m")), ["ada: \ufffd[2J\ufffd31m"])
        self.assertEqual(lines(Join(Info("a\x1bb"))), ["* a\ufffdb joined"])

    def test_every_line_of_a_text_carries_the_name_anew(self) -> None:
        for end in ("\n", "\r\n", "\r"):
            self.assertEqual(lines(said(f"one{end}bo: two{end}{end}")), ["ada: one", "ada: bo: two", "ada: ", "ada: "])

    def test_separators_that_some_programs_take_for_line_ends_are_replaced(self) -> None:
        self.assertEqual(lines(said("one\u2028two\x0bthree\x85four")), ["ada: one\ufffdtwo\ufffdthree\ufffdfour"])

    def test_many_short_lines_do_not_grow_without_a_bound(self) -> None:
        written = lines(said("a\n" * 60_000, Info("x" * 32)))
        self.assertEqual(len(written), 201)
        self.assertEqual(written[199], "x" * 32 + ": a")
        self.assertEqual(written[200][:38], "x" * 32 + ": a\ufffda\ufffd")
        self.assertLess(len("".join(written)), 130_000)

    def test_every_event_is_written_as_whole_lines(self) -> None:
        for texts in (EN, ZH):
            for event in (said("a\r\nb"), Join(Info("a\nb")), Leave(Info("\r")), Rename("\n", Info("b"))):
                written = ChatFormat(texts, crlf).encode("room", [event])
                self.assertTrue(written.endswith(b"\r\n"))
                self.assertNotIn(b"\n", written.replace(b"\r\n", b""))
                self.assertNotIn(b"\r", written.replace(b"\r\n", b""))


class FrameTests(SynchronousTestCase):
    def test_equal_formats_are_one_key_so_that_they_share_an_encoding(self) -> None:
        self.assertEqual(
            len({ChatFormat(EN, crlf), ChatFormat(EN, crlf), ChatFormat(ZH, crlf), ChatFormat(EN, text_frames)}), 3
        )

    def test_over_a_websocket_each_line_is_a_frame(self) -> None:
        written = ChatFormat(EN, text_frames).encode("room", [Join(ADA), said("a\nb")])
        self.assertEqual(written, b"\x81\x0c* ada joined\x81\x06ada: a\x81\x06ada: b")

    def test_no_events_give_no_bytes(self) -> None:
        self.assertEqual(ChatFormat(EN, crlf).encode("room", []), b"")
