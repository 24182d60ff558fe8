"""A back end that is told of clients and channels: it checks who tells, and prints what.

WEBHOOK_SECRET=… python webhooks_backend.py PORT
"""

from __future__ import annotations

import base64
import hmac
import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SECRET = base64.b64decode(os.environ["WEBHOOK_SECRET"].removeprefix("whsec_"))
#: Seconds after which a request is refused: it may be one that was recorded.
OLDEST = 300
#: Ids of requests that were handled: one whose answer was lost comes again. A real back end keeps them in its database.
HANDLED: set[str] = set()


class BackEnd(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        name, stamp = self.headers["webhook-id"], self.headers["webhook-timestamp"]
        signed = f"{name}.{stamp}.".encode() + body
        expected = "v1," + base64.b64encode(hmac.digest(SECRET, signed, "sha256")).decode()
        genuine = hmac.compare_digest(expected, self.headers["webhook-signature"])
        if genuine and abs(time.time() - int(stamp)) < OLDEST:
            if name not in HANDLED:
                HANDLED.add(name)
                self.handle_batch(json.loads(body))
            self.send_response(204)
        else:
            self.send_response(403)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def handle_batch(self, batch: Any) -> None:
        if batch["dropped"]:
            print(f"{batch['dropped']} events are lost: ask the server API what is there now", flush=True)
        for each in batch["events"]:
            print(each["event"], each.get("channel") or f"{each['name']} by {each['protocol']}", flush=True)

    def log_message(self, *arguments: Any) -> None:
        pass


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), BackEnd)
    print("ready", flush=True)
    server.serve_forever()
