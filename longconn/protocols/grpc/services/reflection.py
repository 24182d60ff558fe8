"""grpc.reflection: descriptors of the services and their messages (`doc/server-reflection.md` in grpc/grpc)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pool import DescriptorPool

from longconn.protocols.grpc.call import GrpcCall, Services
from longconn.protocols.grpc.services.callers import admit
from longconn.protocols.grpc.services.messages import parse
from longconn.protocols.grpc.services.standard import message
from longconn.wire.grpc_status import StatusCode


class Reflection:
    """One version of the service. The versions differ in the package of their messages only."""

    def __init__(self, version: str, services: Services, pool: DescriptorPool) -> None:
        self._services = services
        self._pool = pool
        self._request = message(f"grpc.reflection.{version}.ServerReflectionRequest")
        self._response = message(f"grpc.reflection.{version}.ServerReflectionResponse")

    async def info(self, call: GrpcCall) -> None:
        """Answer each request in turn."""
        while (data := await call.read()) is not None:
            admit(call)
            request = parse(self._request, data)
            response = self._response(valid_host=request.host, original_request=request)
            try:
                self._answer(request, response)
            except KeyError:
                response.error_response.error_code = StatusCode.NOT_FOUND
                response.error_response.error_message = "not found"
            call.write(response.SerializeToString())
            await call.drained()

    def _answer(self, request: Any, response: Any) -> None:
        """Fill in the response. Raises KeyError for an unknown file, symbol or type."""
        kind = request.WhichOneof("message_request")
        if kind == "list_services":
            for name in sorted({path.split("/")[1] for path in self._services}):
                response.list_services_response.service.add(name=name)
        elif kind == "file_by_filename":
            self._describe(self._pool.FindFileByName(request.file_by_filename), response)
        elif kind == "file_containing_symbol":
            self._describe(self._file_of(request.file_containing_symbol), response)
        elif kind == "all_extension_numbers_of_type":
            # There are no extensions: proto3 has them for options only. The type itself must exist.
            self._pool.FindMessageTypeByName(request.all_extension_numbers_of_type)
            response.all_extension_numbers_response.base_type_name = request.all_extension_numbers_of_type
        elif kind == "file_containing_extension":
            raise KeyError(request.file_containing_extension.containing_type)
        else:
            response.error_response.error_code = StatusCode.INVALID_ARGUMENT
            response.error_response.error_message = "nothing is asked for"

    def _describe(self, file: FileDescriptor, response: Any) -> None:
        found = response.file_descriptor_response.file_descriptor_proto
        found.extend(each.serialized_pb for each in dict.fromkeys(_with_imports(file)))

    def _file_of(self, symbol: str) -> FileDescriptor:
        """Return the file that defines a symbol. Raises KeyError."""
        try:
            return self._pool.FindFileContainingSymbol(symbol)
        except KeyError:  # some versions of the library do not find methods
            service = self._pool.FindServiceByName(symbol.rpartition(".")[0])
            if symbol not in [each.full_name for each in service.methods]:
                raise
            return service.file


def _with_imports(file: FileDescriptor) -> Iterator[FileDescriptor]:
    yield file
    for each in file.dependencies:
        yield from _with_imports(each)
