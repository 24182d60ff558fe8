"""The tables of errors and of disconnects."""

from longconn.core import disconnects, errors
from longconn.core.disconnects import DISCONNECTS, Disconnect
from longconn.core.errors import CommandError, Reason
from longconn.core.publication import Data
from longconn.protocols.http.errors import STATUSES
from longconn.wire.chat_texts import EN, ZH
from longconn.wire.websocket import close_code
from tests.core.common import Case

REASONS = [each for each in vars(errors).values() if isinstance(each, Reason)]
ALL_DISCONNECTS = [each for each in vars(disconnects).values() if isinstance(each, Disconnect)]


class ErrorTests(Case):
    def test_numbers_and_keys_are_used_once(self) -> None:
        self.assertEqual(len({each.code for each in REASONS}), len(REASONS))
        self.assertEqual(len({each.key for each in REASONS}), len(REASONS))

    def test_each_reason_has_a_number_a_status_of_http_and_a_chinese_text(self) -> None:
        for each in REASONS:
            with self.subTest(key=each.key):
                self.assertTrue(100 <= each.code <= 199)
                self.assertTrue(400 <= STATUSES[each] <= 599)
                self.assertIn(each.key, ZH.errors)

    def test_reasons_that_may_pass_are_temporary(self) -> None:
        temporary = {each.key for each in REASONS if each.temporary}
        self.assertEqual(
            temporary, {"internal", "too_many_requests", "name_taken", "shutting_down", "broker_unavailable"}
        )

    def test_texts_are_filled(self) -> None:
        error = CommandError(errors.TOO_LARGE, limit=5)
        self.assertEqual(str(error), "too large: at most 5 bytes")
        self.assertEqual(EN.error(error), "too large: at most 5 bytes")
        self.assertEqual(ZH.error(error), "太长:最多5字节")
        self.assertEqual(self.refused("bad_data", Data.of_json, b"{").values, {"what": "JSON"})


class DisconnectTests(Case):
    def test_all_are_in_the_table_under_their_own_number(self) -> None:
        self.assertEqual({each.code: each for each in ALL_DISCONNECTS}, DISCONNECTS)
        self.assertEqual(len(ALL_DISCONNECTS), len(DISCONNECTS))
        self.assertEqual(len({each.key for each in ALL_DISCONNECTS}), len(DISCONNECTS))

    def test_the_number_says_whether_to_reconnect(self) -> None:
        for each in ALL_DISCONNECTS:
            self.assertTrue(3000 <= each.code < 4000)
            self.assertEqual(each.reconnect, each.code < 3500)
        self.assertTrue(disconnects.SHUTDOWN.reconnect and disconnects.SLOW.reconnect)
        self.assertFalse(disconnects.IDLE.reconnect or disconnects.CONNECTION_LIMIT.reconnect)

    def test_those_of_centrifugo_have_its_numbers(self) -> None:
        known = {
            "SHUTDOWN": 3001,
            "SERVER_ERROR": 3004,
            "SLOW": 3008,
            "WRITE_TIMEOUT": 3009,
            "NO_PONG": 3012,
            "CONNECTION_LIMIT": 3504,
        }
        self.assertEqual({name: getattr(disconnects, name).code for name in known}, known)

    def test_each_has_a_form_in_every_protocol(self) -> None:
        for each in ALL_DISCONNECTS:
            with self.subTest(key=each.key):
                self.assertTrue(1000 <= close_code(each) < 5000)
                self.assertNotIn(close_code(each), (1004, 1005, 1006, 1015))  # RFC 6455, 7.4.1: never in a frame
                self.assertLessEqual(len(each.text.encode()), 123)
                self.assertTrue(EN.disconnect(each).startswith("disconnected: "))
                self.assertIn(each.key, ZH.disconnects)
        self.assertEqual(close_code(disconnects.SHUTDOWN), 1001)
        self.assertEqual(close_code(disconnects.SLOW), 3008)
