"""The chat page in a real browser, against a server process."""

import http.client
import json
import time

import jwt

from tests.live.devtools import PATIENCE, Page
from tests.live.page import FOCUS, MESSAGES, PEOPLE, SAID, STATE, PageCase, text_of

#: One client's messages on two days. The script returns the times shown and, for each message, whether it has a head.
_DAYS = """(async () => {
  const { Messages } = await import(new URL("page/messages.js", location.origin));
  const said = (...time) => ({ kind: "message", name: "a", client: "c", data: "x", time: new Date(2020, 1, ...time) });
  const items = [said(1, 10, 0), said(1, 10, 1), said(2, 0, 0), said(2, 0, 1)];
  new Messages().open({ items, total: 4, drawing: 0, entered: true, wanted: null });
  const all = (selector) => [...document.querySelectorAll(`#messages ${selector}`)];
  const times = all("time").map((each) => each.textContent.replace(/ [AP]M/, ""));
  return { times, heads: all("li").map((each) => !each.matches(".goes-on")) };
})()"""
_SECRET = "a-secret-of-thirty-two-bytes-or-more"


class PageTests(PageCase):
    def test_two_pages_and_a_terminal(self) -> None:
        self.serve()
        ann = self.nc()
        ann.write(b"/nick Ann\nfirst\n")
        self.read(ann)
        self.assertEqual(self.read(ann), "Ann: first")
        mia = self.visit("mia")
        self.assertEqual(self.read(ann), "* mia joined")
        mia.until(SAID, ["Ann: first"])  # history
        self.assertEqual(
            mia.evaluate("new Date(document.querySelector('.message time').dateTime) - Date.now() < 9e4"), True
        )
        mia.until(PEOPLE, ["mia", "you", "Ann"])
        bob = self.visit("bob")
        self.assertEqual(self.read(ann), "* bob joined")
        mia.until(PEOPLE, ["mia", "you", "Ann", "bob"])
        self.say(mia, "hello")
        for page in (mia, bob):
            page.until(f"{SAID}.at(-1)", "mia: hello")
        self.assertEqual(self.read(ann), "mia: hello")
        self.assertEqual(mia.evaluate("document.querySelectorAll('li.own').length"), 1)
        self.assertEqual(bob.evaluate("document.querySelectorAll('li.own').length"), 0)
        # Several lines are one message; a chat reader sees each with the name.
        bob.evaluate("document.querySelector('#text').focus()")
        bob.type("one")
        bob.press("Enter", shift=True)
        bob.type("two")
        bob.press("Enter")
        mia.until(f"{SAID}.at(-1)", "bob: one\ntwo")
        self.assertEqual([self.read(ann), self.read(ann)], ["bob: one", "bob: two"])
        self.server.post("/channels/lobby?name=cron", {"free": [1, None]})
        mia.until(f"{SAID}.at(-1)", 'cron: {"free":[1,null]}')
        self.assertEqual(mia.evaluate("document.querySelector('li:last-child .text').tagName"), "CODE")
        # Numbers that JavaScript has no value for are shown as they were published.
        published = '{"a":1.50,"b":[1e999,1],"c":123456789012345678901234}'
        ann.write(f"/json {published}\n".encode())
        mia.until(f"{SAID}.at(-1)", f"Ann: {published}")
        ann.write(b"/nick Zoe\n")
        mia.until(f"{SAID}.at(-1)", "Ann is now Zoe")
        mia.until(PEOPLE, ["mia", "you", "bob", "Zoe"])
        bob.close()
        mia.until(f"{SAID}.at(-1)", "Ann is now Zoe · bob left")
        mia.until(PEOPLE, ["mia", "you", "Zoe"])
        self.clean(mia)

    def test_joins_and_leaves_in_a_row_are_one_line(self) -> None:
        self.serve()
        page = self.visit("mia")
        for number in range(7):
            self.nc().write(b"/nick p%d\n" % number)
            page.until(f"{PEOPLE}.length", number + 3)
        page.until(SAID, ["p0, p1, p2, p3 and 3 more joined"])
        # A client without a name is listed after those with one. No message was published yet.
        self.nc()
        page.until(f"{PEOPLE}.at(-1).startsWith('127.0.0.1:')")
        self.assertFalse(page.evaluate("document.querySelector('#empty').hidden"))
        page.size(360, 740)
        page.evaluate("location.hash = 'a-channel-with-a-name-that-is-not-short'; 1")
        page.until("document.querySelector('#empty').hidden", False)
        right = (
            "Math.max(...[...document.querySelectorAll('#empty > *')].map(each => each.getBoundingClientRect().right))"
        )
        self.assertLessEqual(page.evaluate(right), 360)
        self.clean(page)

    def test_a_new_name_belongs_to_the_latest_client_with_the_old_one(self) -> None:
        self.serve()
        page = self.visit("mia")
        first = self.nc()
        first.write(b"/nick one\n")
        page.until(SAID, ["one joined"])
        first.write(b"/quit\n")
        page.until(SAID, ["one joined · one left"])
        second = self.nc()
        second.write(b"/nick one\n")
        page.until(SAID, ["one joined · one left · one joined"])
        second.write(b"/nick zoe\n")
        page.until(SAID, ["one joined · one left · zoe joined"])
        self.clean(page)

    def test_days(self) -> None:
        self.serve()
        page = self.visit()
        found = page.evaluate(_DAYS)
        self.assertEqual([len(each.split()) > 2 for each in found["times"]], [True, False, True, False])
        self.assertEqual(found["heads"], [True, False, True, False])
        self.clean(page)

    def test_names(self) -> None:
        self.serve()
        ann = self.nc()
        ann.write(b"/nick Ann\nhi\n")
        profile = self.browser.profile()
        page = self.browser.page(f"http://127.0.0.1:{self.proxy.port}/", profile)
        page.until("document.querySelector('#naming')?.open")
        for name, error in (("ann", "the name ann is taken"), ("a b", "a name is 1 to 32 letters")):
            page.evaluate("document.querySelector('#name').select()")
            page.type(name)
            page.press("Enter")
            page.until(f"{text_of('#name-error')}.startsWith({json.dumps(error)})")
            self.assertEqual(page.evaluate(FOCUS), "name")
        page.evaluate("document.querySelector('#name').select()")
        page.type("mia")
        page.press("Enter")
        page.until("document.querySelector('#naming').open", False)
        page.until(PEOPLE, ["mia", "you", "Ann"])
        # The name survives a reload, and can be changed while connected.
        page.reload()
        page.until(PEOPLE, ["mia", "you", "Ann"])
        self.assertFalse(page.evaluate("document.querySelector('#naming').open"))
        page.click("#me")
        page.until(FOCUS, "name")
        page.evaluate("document.querySelector('#name').select()")
        page.type("ANN")
        page.press("Enter")
        page.until(text_of("#name-error"), "the name ANN is taken")
        page.evaluate("document.querySelector('#name').select()")
        page.type("mia.2")
        page.press("Enter")
        page.until(PEOPLE, ["mia.2", "you", "Ann"])
        self.say(page, "me again")
        page.until(f"{SAID}.at(-1)", "mia.2: me again")
        # A reload keeps the tab's secret. By it the page gets a name at once from a connection that is dead: this one.
        secret = "import('/page/address.js').then(found => found.tabSecret)"
        resume = page.evaluate(secret)
        ghost = self.nc(greeted=False)
        ghost.write(b'{"id":1,"connect":{"data":{"chat":{"name":"mia.3","resume":"%b"}}}}\n' % resume.encode())
        self.assertIn('"connect"', self.read(ghost))
        page.reload()
        page.until(STATE, "Connected")
        self.assertEqual(page.evaluate(secret), resume)
        page.click("#me")
        page.until(FOCUS, "name")
        page.evaluate("document.querySelector('#name').select()")
        page.type("mia.3")
        page.press("Enter")
        page.until(PEOPLE, ["mia.3", "you", "Ann"])
        # A second page finds the name taken. It reads nevertheless, and asks for another name.
        second = self.browser.page(f"http://127.0.0.1:{self.proxy.port}/", profile)
        second.until(text_of("#name-error"), "the name mia.3 is taken")
        self.assertNotEqual(second.evaluate(secret), resume)
        second.until(f"{SAID}.at(-1)", "mia.2: me again")
        second.click("#nameless")
        second.until("document.querySelector('#naming').open", False)
        second.until(PEOPLE + ".slice(1)", ["you", "Ann", "mia.3"])
        self.assertRegex(second.evaluate(f"{PEOPLE}[0]"), r"^127\.0\.0\.1:\d+$")
        self.clean(page, second)

    def test_channels(self) -> None:
        self.serve()
        self.server.post("/channels/a%2Fb%23c?name=cron", "an old one")
        page = self.visit("mia", "#a/b%23c")
        page.until(text_of("#title-text"), "a/b#c")
        page.until(MESSAGES, ["cron: an old one"])
        page.evaluate("document.querySelector('#join-channel').focus()")
        page.type("two words")
        page.press("Enter")
        page.until(f"{text_of('#join-error')} !== ''")
        page.evaluate("document.querySelector('#join-channel').select()")
        page.type("news")
        page.press("Enter")
        page.until("location.hash", "#news")
        page.until(text_of("#title-text"), "news")
        page.until(FOCUS, "text")
        # It has read the history: what comes from now on is live, and counted as unread.
        page.until("document.querySelector('#empty').hidden", False)
        page.type("half a sentence")
        # Channels that are not open count unread messages. Each channel keeps its draft.
        page.evaluate("document.querySelector('#channel-list a').click()")
        page.until("document.querySelector('#text').value", "")
        self.server.publish("news", "one", "two")
        page.until("document.querySelectorAll('#channel-list .unread')[1].firstChild.data", "2")
        page.until("document.title", "(2) #a/b#c · longconn")
        page.evaluate("history.back()")
        page.until(text_of("#title-text"), "news")
        page.until("document.querySelector('#text').value", "half a sentence")
        page.until(f"{MESSAGES}.map(each => each.split(': ')[1])", ["one", "two"])
        page.until("document.querySelectorAll('#channel-list .unread')[1].hidden")
        page.until("document.title", "#news · longconn")
        page.sent.clear()
        page.reload()
        page.until("[...document.querySelectorAll('#channel-list .label')].map(e => e.textContent)", ["a/b#c", "news"])
        page.until(f"{MESSAGES}.map(each => each.split(': ')[1])", ["one", "two"])
        page.until("document.querySelector('#people-count').textContent", "1")
        # Presence is requested for the open channel alone.
        asked = [each for sent in page.sent for each in sent.split("\n") if '"presence"' in each]
        self.assertEqual([json.loads(each)["presence"]["channel"] for each in asked], ["news"])
        page.evaluate("document.querySelector('[aria-label=\"Leave news\"]').click()")
        page.until(text_of("#title-text"), "a/b#c")
        self.assertEqual(page.evaluate("[location.hash, document.activeElement.hash]"), ["#a/b%23c", "#a/b%23c"])
        end = time.monotonic() + PATIENCE
        while self.server.api("presence", channel="news")["presence"]:
            self.assertLess(time.monotonic(), end)
        self.clean(page)

    def test_white_space_draws_no_empty_rows(self) -> None:
        self.serve()
        page = self.visit("mia")
        self.server.publish("lobby", "one", "two\n\n\n\n", " \n\t\n \n", "", " a\n b \n")
        page.until(f"{MESSAGES}.map(each => each.split(': ')[1])", ["one", "two", "(blank)", "(blank)", " a\n b"])
        heights = page.evaluate("[...document.querySelectorAll('.message .text')].map(e => e.offsetHeight)")
        self.assertEqual(heights[1], heights[0])
        self.assertLessEqual(max(heights[2:4]), heights[0])
        self.clean(page)

    def test_it_asks_for_a_name_and_a_password(self) -> None:
        self.serve('auth = "memory:ann:secret"\n')
        page = self.browser.page(f"http://127.0.0.1:{self.proxy.port}/", self.browser.profile())
        page.until("document.querySelector('#naming')?.open")
        page.type("mia")
        page.press("Enter")
        page.until("document.getElementById('signin').open")
        self.sign_in(page, "ann", "wrong")
        page.until(text_of("#signin-error"), "The name or the password is wrong.")
        self.sign_in(page, "", "secret")
        page.until("document.body.dataset.connection", "connected")
        self.say(page, "hello")
        page.until(MESSAGES, ["mia: hello"])
        (client,) = self.server.api("presence", channel="lobby")["presence"].values()
        self.assertEqual(client["user"], "ann")
        self.assertNotIn("secret", page.evaluate("JSON.stringify(localStorage)"))
        self.clean(page)

    def sign_in(self, page: Page, user: str, password: str) -> None:
        if user:
            page.click("#signin-user")
            page.type(user)
        page.click("#signin-password")
        page.type(password)
        page.click("#signin-form button")

    def test_text_of_others_is_never_markup(self) -> None:
        self.serve(f'token_hmac_secret_key = "{_SECRET}"\nanonymous = "yes"\n')
        page = self.visit("mia")
        evil = "<img/src=x/onerror=console.log(1)><script>console.log(2)</script><b>"
        self.say(page, evil)
        page.until(MESSAGES, [f"mia: {evil}"])
        self.server.post("/channels/lobby", {evil: evil})
        page.until(MESSAGES + ".length", 2)
        self.assertIn(json.dumps(evil), page.evaluate(f"{MESSAGES}[1]"))
        # A name with markup. Chat clients cannot take one, but a token may contain one.
        client = self.nc(greeted=False)
        token = jwt.encode({"sub": "7", "info": {"name": evil}}, _SECRET, algorithm="HS256")
        for number, command in enumerate(
            ({"connect": {"token": token}}, {"subscribe": {"channel": evil}},
             {"publish": {"channel": evil, "data": evil}}), start=1
        ):  # fmt: skip
            client.write(json.dumps({"id": number, **command}).encode() + b"\n")
        self.assertIn('"connect"', self.read(client))
        page.evaluate(f"location.hash = encodeURIComponent({json.dumps(evil)}); 1")
        page.until(text_of("#title-text"), evil)
        page.until(SAID, [f"{evil}: {evil}"])
        page.until(PEOPLE, ["mia", "you", evil])
        client.write(b'{"id":4,"unsubscribe":{"channel":%b}}\n' % json.dumps(evil).encode())
        page.until(PEOPLE, ["mia", "you"])  # a program without a name in the chat is not announced
        self.assertEqual(page.evaluate("document.querySelectorAll('main img, main script, b').length"), 0)
        # An http or https URL is a link, without the full stop after it.
        odd = "javascript:alert(1) https://example.org/a?b=c&d=%27. <http://x.org> 见https://y.org/z。(https://z.org/a_(b))"
        self.say(page, odd)
        page.until(f"{MESSAGES}.at(-1)", f"mia: {odd}")
        links = page.evaluate("[...document.querySelectorAll('.text a')].map(a => a.textContent + ' ' + a.rel)")
        addresses = ["https://example.org/a?b=c&d=%27", "http://x.org", "https://y.org/z", "https://z.org/a_(b)"]
        self.assertEqual(links, [f"{each} noopener noreferrer" for each in addresses])
        self.assertEqual(page.logs, [])
        self.clean(page)
        # Even if the page's own code were wrong, no script would run.
        wrong = "document.body.innerHTML = '<img src=x onerror=console.log(3)>'"
        self.assertEqual(page.evaluate(f"try {{ {wrong} }} catch (error) {{ error.name }}"), "TypeError")
        foreign = "new Promise(done => { const script = document.createElement('script'); script.onerror = done; %s })"
        inserts = "script.setAttribute('src', 'data:text/javascript,console.log(4)'); document.body.append(script)"
        self.assertRaises(AssertionError, page.evaluate, foreign % inserts)
        self.assertEqual(page.logs, [])

    def test_by_keyboard_alone(self) -> None:
        self.serve()
        page = self.visit("mia")
        self.assertEqual(page.evaluate(FOCUS), "text")
        page.type("typed")
        page.press("Enter")
        page.until(MESSAGES, ["mia: typed"])
        self.assertEqual(page.evaluate(FOCUS), "text")
        page.evaluate("document.querySelector('#skip').focus()")
        reached = []
        for _ in range(9):
            page.press("Tab")
            reached.append(page.evaluate("(e => e.id || e.ariaLabel || e.innerText)(document.activeElement)"))
        order = ["#\nlobby", "Leave lobby", "join-channel", "Join", "hints-open", "me", "messages", "text", "send"]
        self.assertEqual(reached, order)
        # Arrow keys move in the list of channels. An opened channel is scrolled into view, and the field has the focus.
        for each in range(40):
            page.evaluate(f"location.hash = 'c{each}'; 1")
        page.until(text_of("#title-text"), "c39")
        self.assertEqual(page.evaluate(FOCUS), "text")
        current = "document.querySelector('#channel-list a[aria-current]')"
        list_ = "document.querySelector('#channel-list')"
        page.until(f"{current}?.hash", "#c39")
        bottom = "getBoundingClientRect().bottom"
        page.until(f"{current}.{bottom} < {list_}.{bottom} + 1")
        page.evaluate(f"{current}.focus()")
        for key, reached_ in (("ArrowUp", "#c38"), ("ArrowDown", "#c39"), ("ArrowDown", "#c39")):
            page.press(key)
            self.assertEqual(page.evaluate("document.activeElement.hash"), reached_)
        page.press("ArrowUp")
        page.press("Enter")
        page.until(text_of("#title-text"), "c38")
        page.until(FOCUS, "text")
        page.evaluate("location.hash = 'lobby'; 1")
        page.until(text_of("#title-text"), "lobby")
        page.size(390, 844)
        page.until("document.querySelector('#channels').inert")
        page.evaluate("document.querySelector('#channels-open').focus()")
        page.press("Enter")
        page.until("document.activeElement.hash", "#lobby")
        self.assertEqual(page.evaluate("document.querySelector('#channels-open').ariaExpanded"), "true")
        page.press("Escape")
        page.until(FOCUS, "channels-open")
        self.assertTrue(page.evaluate("document.querySelector('#channels').inert"))
        self.assertLessEqual(page.evaluate("document.documentElement.scrollWidth"), 390)
        self.clean(page)

    def test_follows_the_newest_and_keeps_few(self) -> None:
        self.serve()
        page = self.visit("mia")
        list_ = "document.querySelector('#messages')"
        self._many(60)
        page.until(f"{MESSAGES}.at(-1)", "cron: 59")
        end = f"{list_}.scrollHeight - {list_}.scrollTop - {list_}.clientHeight < 2"
        page.until(end)
        page.evaluate(f"{list_}.scrollTop = 100")
        page.until(f"{list_}.scrollTop < 101")
        self._many(2)
        page.until(text_of("#newer span"), "2 new messages")
        self.assertEqual(page.evaluate(f"{list_}.scrollTop"), 100)
        page.click("#newer")
        page.until(end)
        page.until("document.querySelector('#newer').hidden")
        self._many(600)
        page.until(f"{MESSAGES}.at(-1)", "cron: 599")
        page.until(f"{list_}.childElementCount", 500)
        # It continued a block whose first message was removed.
        page.until("document.querySelectorAll('#messages > li:first-child .sign').length", 1)
        page.until(end)
        self.clean(page)

    def _many(self, count: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=PATIENCE)
        body = "\n".join(f'"{each}"' for each in range(count))
        connection.request("POST", "/channels/lobby?name=cron", body, {"Content-Type": "application/x-ndjson"})
        self.assertEqual(connection.getresponse().status, 200)
        connection.close()
