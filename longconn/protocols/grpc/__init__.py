"""gRPC over HTTP/2, under any reactor (design, section 9).

factory      connections for a hub          sending       what a connection sends, by turns
connection   what one connection reads      receiving     messages, credit, and how much is kept
lifetime     its start, pings and end       limits        what a peer may not do too often
call         one call, and its handler      call_outlet   its queue and its window
library      how `h2` is used               services      what may be called
"""
