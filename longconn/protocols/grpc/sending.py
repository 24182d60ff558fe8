"""Sends the frames of one connection: the frames of all its streams take turns, within the flow-control windows.

Every byte of a connection goes through its `Sender` and from there to the connection's outlet, which asks for more as
the kernel takes it. Bytes that the windows (RFC 9113, section 5.2) or the kernel do not take wait in the streams
(`longconn.protocols.grpc.stream_outlet`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from longconn.core.turn import Turn
from longconn.protocols.connection.socket_outlet import SocketOutlet
from longconn.protocols.grpc.h2_adapter import ServerH2
from longconn.wire.http2 import DATA, FRAME_HEADER_SIZE, ErrorCode, frame_header

#: Bytes that are collected for one write to the connection.
BATCH = 64 * 1024
#: Bytes taken from the streams at a time when the connection asks for more.
_FILL = 16 * 1024
#: Bytes of frames without flow control that may wait. More wait only if a peer makes the server answer and does not
#: read the answers.
_MAX_CONTROL = 512 * 1024


class Sender(Iterator[bytes]):
    """The frames that one connection sends, in their order. It is a backlog of the connection's outlet.

    `on_overflow` is called when too many bytes wait that are not subject to flow control.
    """

    def __init__(self, h2: ServerH2, outlet: SocketOutlet, turn: Turn, on_overflow: Callable[[], None]) -> None:
        self.h2 = h2
        #: bytes that are collected
        self.size = 0
        #: streams may add frames while `size` is below this; 0 while the kernel takes no more
        self.room = BATCH
        #: frames of DATA and HEADERS since the last reset of this number; a peer may answer each
        self.sent_frames = 0
        self._outlet = outlet
        self._turn = turn
        self._on_overflow = on_overflow
        self._parts: list[bytes | memoryview] = []
        # For each stream that has something to send and room in its window: a callable that sends one frame and
        # returns whether the stream can send another one.
        self._ready: deque[Callable[[], bool]] = deque()
        self._flush_due = False

    # Frames.

    def append(self, frames: bytes) -> None:
        """Send frames that are not subject to flow control, after the frames that were collected before."""
        self._parts.append(frames)
        self.size += len(frames)
        self._flush_soon()
        if self.size > _MAX_CONTROL:
            self._on_overflow()

    def append_pending(self) -> None:
        """Send the frames that the library has made."""
        frames = self.h2.data_to_send()
        if frames:
            self.append(frames)

    def send_headers(self, stream: int, headers: list[tuple[bytes, bytes]], end_stream: bool = False) -> None:
        """Send a block of headers or trailers."""
        self.h2.send_headers(stream, headers, end_stream=end_stream)
        self.sent_frames += 1
        self.append_pending()

    def reset(self, stream: int, code: ErrorCode) -> None:
        """Send RST_STREAM."""
        self.h2.reset_stream(stream, code)
        self.append_pending()

    def open_window(self, amount: int, stream: int | None = None) -> None:
        """Send WINDOW_UPDATE for a stream, or for the connection."""
        self.h2.increment_flow_control_window(amount, stream)
        self.sent_frames += 1
        self.append_pending()

    def add_data(self, size: int, stream: int, *parts: bytes | memoryview) -> None:
        """Send one DATA frame of `size` bytes, for which both windows have room. The connection's is counted here."""
        self.h2.outbound_flow_control_window -= size
        self.sent_frames += 1
        self._parts.append(frame_header(size, DATA, 0, stream))
        self._parts += parts
        self.size += size + FRAME_HEADER_SIZE
        if not self._flush_due:
            self._flush_due = True
            self._turn.soon(self.flush)
        elif self.size >= BATCH and self.room:
            self.flush()

    def add_ready(self, send_frame: Callable[[], bool]) -> None:
        """Let a stream that has something waiting take turns with the others."""
        self._ready.append(send_frame)
        self._flush_soon()

    # Writing to the connection.

    def hold(self) -> None:
        """Collect until the caller calls `flush`."""
        self._flush_due = True

    def _flush_soon(self) -> None:
        if not self._flush_due:
            self._flush_due = True
            self._turn.soon(self.flush)

    def flush(self) -> None:
        """Write the collected bytes, as far as the connection takes them."""
        self._flush_due = False
        # Without room the outlet already has this backlog, and asks when it can write more.
        if self.room and (self._parts or self._ready):
            self.room = 0
            while self._outlet.idle:
                data = next(self, None)
                if data is None:
                    return
                self._outlet.write(data)
            self._outlet.write_backlog(self)

    def __next__(self) -> bytes:
        if not self._parts:
            self._fill()
        if not self._parts:
            self.room = BATCH
            raise StopIteration
        parts, self._parts = self._parts, []
        self.size = 0
        return b"".join(parts)

    def _fill(self) -> None:
        """Take frames from the streams that wait, one frame a turn."""
        # A flush from within would write to the outlet while the outlet asks for more.
        due, self._flush_due = self._flush_due, True
        for _ in range(len(self._ready)):
            if self.size >= _FILL or self.h2.outbound_flow_control_window <= 0:
                break
            send_frame = self._ready.popleft()
            if send_frame():
                self._ready.append(send_frame)
        self._flush_due = due

    def forget_streams(self) -> None:
        """Streams send nothing more; only control frames may follow."""
        self._ready.clear()

    def stop(self) -> None:
        """The connection is lost."""
        self.room = 0
        self._parts.clear()
        self._ready.clear()
