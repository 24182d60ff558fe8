"""The stock gRPC client, grpcio's, as the other side of tests: its threads hand over what comes."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grpc
from google.protobuf.descriptor import FileDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from longconn.v1 import longconn_pb2
from tests.live.common import until

Metadata = Sequence[tuple[str, str]]


class Stream:
    """A call whose answers go on. `messages` are those that came; `status` is how it ended, once it has."""

    def __init__(self, call: Any) -> None:
        self._call = call
        self.messages: list[Any] = []
        self.status: grpc.StatusCode | None = None
        self.details = ""
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        try:
            for each in self._call:
                self.messages.append(each)
        except grpc.RpcError:
            pass
        self.details = self._call.details() or ""
        self.status = self._call.code()

    async def first(self, count: int) -> list[Any]:
        """So many messages, as soon as they are there."""
        await until(lambda: len(self.messages) >= count or self.status is not None)
        assert len(self.messages) >= count, (self.messages, self.status, self.details)
        return self.messages[:count]

    async def end(self) -> grpc.StatusCode:
        """How it ends, when it has."""
        await until(lambda: self.status is not None)
        assert self.status is not None
        return self.status

    def cancel(self) -> None:
        self._call.cancel()


class Requests(Iterator[Any]):
    """Requests of a call to which more are added, until `close`."""

    def __init__(self, *first: Message) -> None:
        self._queue: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self.add(*first)

    def add(self, *more: Message) -> None:
        for each in more:
            self._queue.put(each)

    def close(self) -> None:
        self._queue.put(None)

    def __next__(self) -> Message:
        found = self._queue.get()
        if found is None:
            raise StopIteration
        return found


class Stock:
    """A channel of grpcio's, with the methods of the services of a file."""

    def __init__(self, port: int, file: FileDescriptor = longconn_pb2.DESCRIPTOR) -> None:
        # Else channels to one address share a connection.
        options = [("grpc.use_local_subchannel_pool", 1)]
        self.channel = grpc.insecure_channel(f"127.0.0.1:{port}", options)
        self._methods = {
            method.name: self._method(service.full_name, method)
            for service in file.services_by_name.values()
            for method in service.methods
        }

    def _method(self, service: str, method: MethodDescriptor) -> Callable[..., Any]:
        kind = f"{'stream' if method.client_streaming else 'unary'}_{'stream' if method.server_streaming else 'unary'}"
        found: Callable[..., Any] = getattr(self.channel, kind)(
            f"/{service}/{method.name}",
            request_serializer=lambda request: request.SerializeToString(),
            response_deserializer=GetMessageClass(method.output_type).FromString,
        )
        return found

    def ask(self, method: str, request: Message, metadata: Metadata = (), timeout: float = 10) -> Deferred[Any]:
        """The answer to a request, or grpc.RpcError."""
        return deferToThread(self._methods[method], request, timeout=timeout, metadata=metadata)

    def open(self, method: str, requests: Message | Requests, metadata: Metadata = ()) -> Stream:
        return Stream(self._methods[method](requests, metadata=metadata))

    def close(self) -> None:
        self.channel.close()
