"""An HTTP client that keeps its connections and uses them again."""

from longconn.clients.keepalive.client import BodyTooLarge, KeepAliveClient, Response

__all__ = ["BodyTooLarge", "KeepAliveClient", "Response"]
