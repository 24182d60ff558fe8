"""The admin page in a real browser, against a server process."""

import json
import socket
from typing import Any

from tests.live.devtools import PATIENCE, Page
from tests.live.page import PageCase, text_of
from tests.live.programs import reserve

_ROWS = "[...document.querySelectorAll('#{} tr')].map(row => row.cells[0].textContent)"
_CLIENTS, _CHANNELS = _ROWS.format("clients"), _ROWS.format("channels")
_SETTINGS = 'anonymous = "yes"\nauth = ["memory:ops:secret"]\nadmin_user = ["ops"]\n'
_SIGNING = "!document.querySelector('#signin').hidden"


class AdminPageTests(PageCase):
    def administer(self) -> Page:
        reserved = reserve()
        self.addCleanup(reserved.close)
        port = reserved.getsockname()[1]
        self.serve(f'{_SETTINGS}admin = ["127.0.0.1:{port}"]\n')
        self.admin = f"http://127.0.0.1:{port}/"
        page = self.browser.page(self.admin)
        page.until(_SIGNING)
        return page

    def sign_in(self, page: Page, **fields: str) -> None:
        for field, value in fields.items():
            page.evaluate(f"document.querySelector('#{field}').value = {json.dumps(value)}")
        page.evaluate("document.querySelector('#signin-form button').click()")

    def talker(self, name: str, channel: str = "lobby") -> Any:
        client = socket.create_connection(("127.0.0.1", self.server.port), PATIENCE)
        self.addCleanup(client.close)
        client.sendall(f"/nick {name}\n/join {channel}\nping\n".encode())
        lines = client.makefile("rb")
        self.addCleanup(lines.close)
        while lines.readline() != b"pong\r\n":
            pass
        return lines

    def confirm(self, page: Page, answer: str = "yes") -> None:
        page.until("document.querySelector('#confirm').open")
        page.evaluate(f"document.querySelector('#confirm button[value={answer}]').click()")

    def test_an_operator_signs_in_looks_and_acts(self) -> None:
        page = self.administer()
        self.sign_in(page, user="ops", password="wrong")
        page.until(text_of("#signin-error"), "This key or password is not right.")
        mia = self.talker("mia")
        self.talker("bob", "games")
        self.sign_in(page, user="ops", password="secret")
        page.until(f"{_CLIENTS}.sort()", ["bob", "mia"])
        page.until(f"{_CHANNELS}.sort()", ["games", "lobby"])
        page.until("document.querySelectorAll('.plot').length", 5)
        # A search is sent while it is typed.
        page.evaluate("document.querySelector('#clients-match').focus()")
        page.type("GAMES")
        page.until(_CLIENTS, ["bob"])
        page.evaluate("document.querySelector('#clients-match').value = ''")
        page.evaluate("document.querySelector('#clients-order').dispatchEvent(new Event('change'))")
        page.until(f"{_CLIENTS}.length", 2)
        # Publishing, and the history.
        page.evaluate("document.querySelector('#publish-channel').value = 'lobby'")
        page.evaluate("document.querySelector('#publish-data').value = '<b>disk full</b>'")
        page.evaluate("document.querySelector('#publish button').click()")
        self.confirm(page)
        read: list[bytes] = []
        while b"(server): <b>disk full</b>\r\n" not in read:
            read.append(mia.readline())
        page.evaluate("document.querySelector('[aria-label=\"History of lobby\"]').click()")
        page.until("document.querySelector('#history').open")
        page.until("document.querySelector('#history-list pre').textContent", "<b>disk full</b>")
        page.press("Escape")
        page.until("document.querySelector('#history').open", False)
        # Disconnecting is asked once more.
        button = "document.querySelector('[aria-label=\"Disconnect mia …\"]')"
        page.evaluate(f"{button}.click()")
        self.confirm(page, "no")
        page.evaluate("1")
        page.until(f"{_CLIENTS}.length", 2)
        page.evaluate(f"{button}.click()")
        self.confirm(page)
        page.until(_CLIENTS, ["bob"])
        self.assertTrue(mia.readlines())  # to the end of the connection
        page.problems[:] = [each for each in page.problems if "401" not in each]  # of the wrong password
        self.clean(page)

    def test_by_key_by_keyboard_and_narrow(self) -> None:
        page = self.administer()
        self.talker("mia")
        page.size(360, 700)
        page.until("document.activeElement.id", "key")
        page.type(self.server.KEY)
        page.press("Enter")
        page.until(_CLIENTS, ["mia"])
        self.assertEqual(page.evaluate("document.documentElement.scrollWidth"), 360)
        page.evaluate("document.querySelector('#clients button').focus()")
        page.press("Enter")
        page.until("document.querySelector('#confirm').open")
        # The harmless button has the focus.
        page.press("Enter")
        page.until("document.querySelector('#confirm').open", False)
        # The tab stays signed in when it is loaded anew, and not after signing out.
        page.call("Page.reload")
        page.until(_CLIENTS, ["mia"])
        page.evaluate("document.querySelector('#out').click()")
        page.until(_SIGNING)
        page.call("Page.reload")
        page.until(_SIGNING)
        self.clean(page)

    def test_a_server_that_stops_is_told(self) -> None:
        page = self.administer()
        self.sign_in(page, key=self.server.KEY)
        page.until(f"{text_of('#state')}.startsWith('as of')")
        self.server.stop()
        page.evaluate("document.querySelector('#clients-order').dispatchEvent(new Event('change'))")
        page.until(text_of("#state"), "The server does not answer.")
