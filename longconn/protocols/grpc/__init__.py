"""gRPC over HTTP/2, under any reactor.

factory        makes connections for a hub
connection     one connection: reading, keepalive, the end      limits         rules for inbound frames
streams        its streams: requests become calls               h2_adapter     how the `h2` library is used
call           one call and its handler                         shutdown       GOAWAY in two steps
stream_outlet  a call's responses: queue and window             receiving      a call's requests: messages, windows
sending        the frames of all streams, in turns              services       the methods that may be called
"""
