"""grpc.health.v1: whether the server is ready (`doc/health-checking.md` in grpc/grpc)."""

from __future__ import annotations

from longconn.core.hub import Hub
from longconn.protocols.grpc.call import GrpcCall, Services
from longconn.protocols.grpc.services.messages import parse
from longconn.protocols.grpc.services.standard import message
from longconn.wire.grpc_status import StatusCode, StatusError

_CheckRequest = message("grpc.health.v1.HealthCheckRequest")
_CheckResponse = message("grpc.health.v1.HealthCheckResponse")


class Health:
    """All services have the state of the hub: NOT_SERVING from the start of a shutdown on."""

    def __init__(self, hub: Hub, services: Services) -> None:
        self._hub = hub
        self._services = services

    async def check(self, call: GrpcCall) -> None:
        """Answer with the state now. Raises StatusError(NOT_FOUND) for an unknown service."""
        service = parse(_CheckRequest, await call.read_one()).service
        if not self._known(service):
            raise StatusError(StatusCode.NOT_FOUND, "unknown service")
        call.write(self._state(service))

    async def watch(self, call: GrpcCall) -> None:
        """Answer with the state now, and again whenever it changes."""
        service = parse(_CheckRequest, await call.read_one()).service

        def tell() -> None:
            call.write(self._state(service))

        watchers = self._hub.ready_watchers
        tell()
        if self._known(service):
            watchers.add(tell)
            call.on_end(lambda: watchers.discard(tell))
        await call.wait()

    def _known(self, service: str) -> bool:
        return not service or any(each.startswith(f"/{service}/") for each in self._services)

    def _state(self, service: str) -> bytes:
        status = "SERVICE_UNKNOWN"
        if self._known(service):
            status = "SERVING" if self._hub.ready else "NOT_SERVING"
        state: bytes = _CheckResponse(status=status).SerializeToString()
        return state
