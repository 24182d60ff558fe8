"""What channels and clients may be called."""

from longconn.core.names import check_channel, check_name, fold
from tests.core.common import Case


class ChannelTests(Case):
    def test_a_channel_is_any_text_without_space_and_controls(self) -> None:
        for name in ("lobby", "news:sport", "a/b", "房间", "é" * 127, "x" * 255, "?&#%", "😀"):
            with self.subTest(name=name):
                self.assertEqual(check_channel(name), name)

    def test_names_that_are_not_valid_for_channels(self) -> None:
        for name in (
            "",
            "x" * 256,
            "é" * 128,
            "a b",
            "a\tb",
            "a\nb",
            "a\x00b",
            "a\x7fb",
            "a\x85b",
            "a\u3000b",
            "\ud800",
        ):
            with self.subTest(name=name):
                self.refused("bad_channel", check_channel, name)


class NameTests(Case):
    def test_letters_digits_and_three_signs(self) -> None:
        for name in ("a", "Ada", "ada-l_2.0", "小明", "Ζωή", "x" * 32, "1a", "7"):
            with self.subTest(name=name):
                self.assertEqual(check_name(name), name)

    def test_names_that_are_not_valid_for_clients(self) -> None:
        bad = (
            "",
            "x" * 33,
            "a b",
            "a\n",
            "a:1",
            "[::1]",
            "a/b",
            "<b>",
            "a\u202eb",
            "a\u200bb",
            "😀",
            "\ufdfa",
            "---",
            "\ud800",
        )
        for name in bad:
            with self.subTest(name=name):
                self.refused("bad_name", check_name, name)

    def test_names_that_the_server_assigns_are_refused(self) -> None:
        bad = (
            "127.0.0.1",
            "1.2",
            "0x7f.1",
            "guest-1",
            "Guest-22",
            "localhost",
            "LOCALHOST",
            "\uff11\uff12\uff17.0.0.1",
            "\uff47\uff55\uff45\uff53\uff54-1",
        )
        for name in bad:
            with self.subTest(name=name):
                self.refused("bad_name", check_name, name)

    def test_names_that_look_the_same_are_the_same(self) -> None:
        self.assertEqual(fold("Ada"), fold("aDA"))
        self.assertEqual(fold("\uff41\uff44\uff41"), fold("ada"))  # full width
        self.assertEqual(fold("Straße"), fold("STRASSE"))
        self.assertEqual(fold("e\u0301"), fold("\u00e9"))
        self.assertNotEqual(fold("ada"), fold("bo"))
