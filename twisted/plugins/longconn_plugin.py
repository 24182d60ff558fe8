from twisted.application.service import ServiceMaker

# Nothing else is imported here: the first `twistd` on a machine imports every plugin, and one
# that brought in the reactor would break `twistd --reactor`.
longconn = ServiceMaker("longconn", "longconn.tap", "Chat lines, WebSocket, SSE and HTTP on one port.", "longconn")
