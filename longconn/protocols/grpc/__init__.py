"""gRPC over HTTP/2, under any reactor (design, section 9).

factory      connections for a hub          sending       what a connection sends, by turns
connection   reads the frames of one        receiving     messages, credit, and how much is kept
streams      what they are to calls         limits        what a peer may not do too often
lifetime     its start, pings and end       call_outlet   a call's queue and its window
call         one call, and its handler      services      what may be called
library      how `h2` is used
"""
