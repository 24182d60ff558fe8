"""The chat page when the server stops, when a connection dies, and where WebSockets are blocked."""

from tests.live.page import MESSAGES, PEOPLE, SAID, STATE, WAY, PageCase, text_of

#: A `Room` of the page on a connection that the test answers. The script returns the items that the room shows.
_ROOM = """(async () => {
  const { Room } = await import(new URL("page/room.js", location.origin));
  const answers = {};
  const call = (method) => new Promise((resolve) => (answers[method] = resolve));
  const room = new Room("r", { call, ids: new Set() }, { changed() {}, entered() {}, said() {} });
  const said = (offset) => ({ data: offset, offset, info: { client: "c" } });
  const told = () => new Promise((resolve) => setTimeout(resolve));
  %s
  await told();
  return room.items.map((each) => each.data ?? each.text);
})()"""

#: The error for a message that was on its way when the connection ended, in a state of the connection.
_ENDS = """(async () => {
  const { Room } = await import(new URL("page/room.js", location.origin));
  const { Lost } = await import(new URL("page/connection.js", location.origin));
  const connection = { call: async () => { throw new Lost(""); }, ids: new Set(), state: "%s" };
  const room = new Room("r", connection, { changed() {} });
  const told = room.send("x").catch((error) => error.message);
  await new Promise((resolve) => setTimeout(resolve));
  %s
  return told;
})()"""


class LostTests(PageCase):
    def _publish(self, *texts: str) -> None:
        for each in texts:
            self.server.post("/channels/lobby?name=cron", each)

    def test_recovers_and_says_when_messages_are_lost(self) -> None:
        self.serve()
        mia = self.visit("mia")
        self._publish("one")
        mia.until(MESSAGES, ["cron: one"])
        self.proxy.cut()
        mia.until(STATE, "Reconnecting…")
        self._publish("two", "three")
        self.say(mia, "not now")
        mia.until(text_of("#composer-error"), "Not connected. Your message stays here.")
        self.assertEqual(mia.evaluate("document.querySelector('#text').value"), "not now")
        self.proxy.mend()
        mia.evaluate("dispatchEvent(new Event('online'))")
        mia.until(STATE, "Connected")
        mia.until(MESSAGES, ["cron: one", "cron: two", "cron: three"])
        mia.until(text_of("#composer-error"), "")
        mia.evaluate("document.querySelector('#text').focus()")
        mia.press("Enter")
        mia.until(f"{MESSAGES}.at(-1)", "mia: not now")
        # A restarted server has no old history: the page says so, and shows the new history.
        self.server.stop()
        mia.until(STATE, "Reconnecting…")
        self.server.start()
        self._publish("anew")
        mia.evaluate("dispatchEvent(new Event('online'))")
        mia.until(STATE, "Connected")
        lost = "Some messages could not be recovered."
        said = ["cron: one", "cron: two", "cron: three", "mia: not now", lost, "cron: anew"]
        mia.until(f"{SAID}.filter(each => !/joined|left/.test(each))", said)
        self._publish("live")
        mia.until(f"{MESSAGES}.at(-1)", "cron: live")
        mia.until(text_of("#me-name"), "mia")

    def test_a_dead_connection(self) -> None:
        self.serve("ping_interval = 1\npong_timeout = 1\n")
        mia = self.visit("mia")
        self._publish("one")
        mia.until(MESSAGES, ["cron: one"])
        mia.read_until("{}", mia.sent)  # a ping is answered
        self.proxy.forget()
        self._publish("two")
        self.say(mia, "into the dark")
        mia.until(text_of("#composer-note"), "Sending…")
        mia.evaluate("dispatchEvent(new Event('online'))")  # the network changed: the page tests the connection
        mia.until(MESSAGES, ["cron: one", "cron: two"])
        # For a while the dead connection still holds the name.
        mia.until(PEOPLE, ["mia", "you"])
        mia.until("document.querySelector('#text').value", "into the dark")
        mia.until(text_of("#composer-error"), "It was not sent: the connection was lost.")
        mia.until(text_of("#composer-note"), "")
        mia.evaluate("document.querySelector('#text').focus()")
        mia.press("Enter")
        # No message is doubled, and no new name was announced.
        mia.until(SAID, ["cron: one", "cron: two", "mia: into the dark"])
        self.clean(mia)

    def test_without_websocket(self) -> None:
        self.serve("max_body = 10000\n")
        self.proxy.upgrades = False
        ann = self.nc()
        ann.write(b"/nick Ann\nfirst\n")
        mia = self.visit("mia")
        self.assertEqual(mia.evaluate(WAY), "SSE")
        mia.until(MESSAGES, ["Ann: first"])
        mia.until(PEOPLE, ["mia", "you", "Ann"])
        for each in ("one", "two", "three"):
            self.say(mia, each)
        mia.until(MESSAGES, ["Ann: first", "mia: one", "mia: two", "mia: three"])
        self.proxy.cut()
        mia.until(STATE, "Reconnecting…")
        self._publish("meanwhile")
        self.proxy.mend()
        mia.until(f"{MESSAGES}.at(-1)", "cron: meanwhile")
        mia.until(WAY, "SSE")
        self.assertEqual(mia.evaluate(f"{MESSAGES}.length"), 5)
        mia.evaluate("document.querySelector('#text').value = 'x'.repeat(2 ** 14)")
        mia.press("Enter")
        mia.until(text_of("#composer-error"), "the message is too large")
        mia.until("document.querySelector('#text').value.length", 2**14)
        # It is remembered that WebSockets do not work, until it is time to try them again.
        mia.problems.clear()
        mia.reload()
        mia.until(WAY, "SSE")
        self.clean(mia)
        self.proxy.upgrades = True
        stored = "Object.keys(localStorage).find(each => each.endsWith('blocked'))"
        mia.evaluate(f"localStorage.setItem({stored}, JSON.stringify({{until: Date.now() + 500, wait: 60000}}))")
        mia.reload()
        mia.until(WAY, "WebSocket")
        mia.until(f"{MESSAGES}.length", 5)

    def test_a_message_on_its_way_at_a_final_end_goes_back_into_the_field(self) -> None:
        self.serve()
        page = self.visit()
        for state, then in (("stopped", ""), ("waiting", "connection.state = 'stopped'; room.disconnected();")):
            self.assertEqual(
                page.evaluate(_ENDS % (state, then)), "It may not have been sent: the connection was lost.", state
            )
        self.clean(page)

    def test_a_message_published_during_the_history_request_is_shown_once(self) -> None:
        self.serve()
        page = self.visit()
        enter = "room.enter(); answers.subscribe({ epoch: 'e', offset: 2, positioned: true }); await told();"
        history = "answers.history({ epoch: 'e', publications: [%s].map(said) }); await told();"
        for steps, shown in (
            # Published between the subscribe and the history request.
            (enter + history % "3, 2, 1" + "room.push({ pub: said(3) }); room.push({ pub: said(4) });", [1, 2, 3, 4]),
            (
                enter + "room.push({ pub: said(3) });" + history % "4, 3, 2, 1" + "room.push({ pub: said(4) });",
                [1, 2, 3, 4],
            ),
            # The connection is lost before the history reply: the page asks again, and inserts it before live messages.
            (
                enter + "room.push({ pub: said(3) }); room.disconnected(); room.enter(); "
                "answers.subscribe({ epoch: 'e', offset: 4, positioned: true, was_recovering: true, recovered: true, "
                "publications: [said(4)] }); await told();" + history % "4, 3, 2, 1",
                [1, 2, 3, 4],
            ),
            # Another epoch: offsets start at 1 again.
            (
                enter + history % "2, 1" + "room.disconnected(); room.enter(); "
                "answers.subscribe({ epoch: 'f', offset: 1, positioned: true, was_recovering: true }); await told();"
                + history.replace("'e'", "'f'") % "1"
                + "room.push({ pub: said(2) });",
                [1, 2, "Some messages could not be recovered.", 1, 2],
            ),
        ):
            self.assertEqual(page.evaluate(_ROOM % steps), shown, steps)
        self.clean(page)
