"""The gRPC service `longconn.v1.LongConn`: `longconn.proto`, and the messages that protoc made of it."""
