"""A broker that several processes share: channels are kept in Redis 6.2 or newer, or in Valkey.

`broker` routes the hub's requests to a `shard` for each server. A shard speaks to its server through a `link`: one
connection, on which commands, their replies and what other processes publish stay in one order.
"""
