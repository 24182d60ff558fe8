"""A back end that decides who may connect, subscribe and publish, as its own site knows its users.

    python hooks_backend.py PORT

It answers POSTs in the form of Centrifugo's proxies. Any web framework does.
"""

from __future__ import annotations

import json
import sys
from http.cookies import SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

#: Users by the value of the cookie `session`; a real site looks into its database.
SESSIONS = {"s-ann": "ann", "s-bo": "bo"}


class BackEnd(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        asked: Any = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        decide = {"/connect": self.connect, "/subscribe": self.subscribe, "/publish": self.publish}[self.path]
        body = json.dumps(decide(asked)).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def connect(self, asked: Any) -> Any:
        cookie = SimpleCookie(self.headers.get("Cookie", "")).get("session")
        user = SESSIONS.get(cookie.value) if cookie else None
        if user is None:
            return {"error": {"code": 1000, "message": "sign in first"}}
        return {"result": {"user": user, "info": {"team": "storage"}}}

    def subscribe(self, asked: Any) -> Any:
        if asked["channel"] != f"inbox:{asked['user']}":
            return {"error": {"code": 1001, "message": "this is not your inbox"}}
        return {"result": {}}

    def publish(self, asked: Any) -> Any:
        if asked["data"] == "spam":
            return {"error": {"code": 1002, "message": "no spam"}}
        return {"result": {"data": {"from": asked["user"], "text": asked["data"]}}}

    def log_message(self, *arguments: Any) -> None:
        pass


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), BackEnd)
    print("ready", flush=True)
    server.serve_forever()
