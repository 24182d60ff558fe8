"""The scripts that run inside Redis, each of them at one moment of the server's time.

A channel NAME is kept under keys with the hash tag {NAME}, so that they are in one slot of a cluster:

  PREFIX:{NAME}:meta        a hash: `e` epoch, `o` offset, `g` the generation of `e`, `b` bytes that are kept,
                            `f` when the oldest publication that is kept was made, in milliseconds since 1970
  PREFIX:{NAME}:stream      the kept publications; the id of one is OFFSET-TIME
  PREFIX:{NAME}:once:KEY    the answer to a publication that may be asked for again
  PREFIX:{NAME}:nodes       the processes that have members: a sorted set by the time at which their members expire
  PREFIX:{NAME}:on:NODE     a hash: the members at one process, by client
  PREFIX:{NAME}:asked:NODE  the number of that process's last request about its members

A generation is a time of the server in which no acknowledged write was lost (`ENTER`). With another generation each
channel gets another epoch. Its offsets and its kept publications stay.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Script:
    """A script in Lua, and its digest, by which the server knows it."""

    source: str
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest())


# KEYS: meta, stream. ARGV: generation, an epoch in case that one is needed, the seconds that a position is remembered,
# the milliseconds that a publication is kept.
_OPEN = """
local meta, stream = KEYS[1], KEYS[2]
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local known = redis.call('HMGET', meta, 'e', 'o', 'g', 'b', 'f')
local epoch, offset = known[1], tonumber(known[2] or 0)
local bytes, oldest = tonumber(known[4] or 0), tonumber(known[5] or 0)
local position_ttl, ttl = tonumber(ARGV[3]), tonumber(ARGV[4])
local fresh = not epoch or known[3] ~= ARGV[1]
if not epoch then redis.call('DEL', stream) end
if fresh then epoch = ARGV[2] end
local count = redis.call('XLEN', stream)
if count == 0 then bytes, oldest = 0, 0 end

local function number(value) return string.format('%.0f', value) end
local function time_of(entry) return tonumber(string.match(entry[1], '-(%d+)')) end

local function drop(most, most_bytes)
  local first
  local before = count
  while count > 0 and (count > most or bytes > most_bytes or oldest <= now - ttl) do
    local range = redis.call('XRANGE', stream, first or '-', '+', 'COUNT', 2)
    count, bytes = count - 1, bytes - #range[1][2][2]
    if not range[2] then count = 0 break end
    first, oldest = range[2][1], time_of(range[2])
  end
  if count == 0 then
    redis.call('DEL', stream)
    bytes, oldest = 0, 0
  elseif first then
    redis.call('XTRIM', stream, 'MINID', first)
  end
  return count ~= before
end

local function save()
  redis.call('HSET', meta, 'e', epoch, 'o', number(offset), 'g', ARGV[1], 'b', number(bytes), 'f', number(oldest))
end
"""

#: Publishes. KEYS: meta, stream, the key of the answer. ARGV: as above, then what tells this request from others, how
#: long its answer is remembered in seconds, publications kept at most, bytes kept at most, the channel of Pub/Sub, the
#: records. The answer: the epoch, and the offset of the last record.
#:
#: The requests of a process are counted. One whose connection was lost may arrive after its repetition on the next
#: connection, and after later requests: it makes nothing.
PUBLISH = Script(
    _OPEN
    + """
local answer = redis.call('GET', KEYS[3])
if answer then
  local request, then_epoch, then_offset = string.match(answer, '^(%S*) (%S*) (%S*)$')
  if request == ARGV[5] then return {then_epoch, tonumber(then_offset)} end
  local function count(text) return tonumber(string.match(text, '%d+$') or 0) end
  if count(request) > count(ARGV[5]) then return redis.error_reply('LATE a later request was answered before') end
end
local most, most_bytes = tonumber(ARGV[7]), tonumber(ARGV[8])
local message = {'P', epoch, ':', number(offset + 1), ':', number(now), ':'}
local added = #ARGV - 9
for index = 1, added do
  local record = ARGV[9 + index]
  if added - index < most then
    redis.call('XADD', stream, number(offset + index) .. '-' .. number(now), 'r', record)
    if count == 0 then oldest = now end
    count, bytes = count + 1, bytes + #record
  end
  message[#message + 1] = #record .. ':' .. record
end
offset = offset + added
drop(most, most_bytes)
if count > 0 then redis.call('PEXPIRE', stream, ARGV[4]) end
save()
redis.call('EXPIRE', meta, position_ttl)
redis.call('SET', KEYS[3], ARGV[5] .. ' ' .. epoch .. ' ' .. number(offset), 'EX', ARGV[6])
redis.call('PUBLISH', ARGV[9], table.concat(message))
return {epoch, offset}
"""
)

#: Publishes without keeping, once. KEYS: the key of the answer. ARGV: how long it is remembered in seconds, the channel
#: of Pub/Sub, the message.
PUBLISH_UNKEPT = Script("""
if redis.call('SET', KEYS[1], '', 'NX', 'EX', ARGV[1]) then redis.call('PUBLISH', ARGV[2], ARGV[3]) end
return 1
""")

#: Reads. KEYS: meta, stream. ARGV: as above, then the epoch of a position (empty: any), its offset (-1: none), how many
#: publications at most (-1: all), 1 for the newest first. The answer: the epoch, the offset, the offset of the oldest
#: publication that is kept (one more than the offset without any), the entries.
READ = Script(
    _OPEN
    + """
if drop(math.huge, math.huge) or fresh then save() end
redis.call('EXPIRE', meta, position_ttl)
local first = offset + 1
if count > 0 then
  first = tonumber(string.match(redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1][1], '^%d+'))
end
local since, limit, reverse = tonumber(ARGV[6]), tonumber(ARGV[7]), ARGV[8] == '1'
local same = since >= 0 and (ARGV[5] == '' or ARGV[5] == epoch)
if count == 0 or limit == 0 or (reverse and same and since == 0) then return {epoch, offset, first, {}} end
local ask
if reverse then
  ask = {'XREVRANGE', stream, same and '(' .. number(since) .. '-0' or '+', '-'}
elseif same and first - 1 <= since and since <= offset then
  ask = {'XRANGE', stream, number(since + 1) .. '-0', '+'}
else
  ask = {'XRANGE', stream, '-', '+'}
end
if limit > 0 then
  ask[5], ask[6] = 'COUNT', number(limit)
end
return {epoch, offset, first, redis.call(unpack(ask))}
"""
)

#: Forgets what is kept. KEYS: meta, stream.
REMOVE = Script("redis.call('DEL', KEYS[2])")

#: A process comes to a server. KEYS: the hash of the generation. ARGV: the server's run id, 1 if it has each write on
#: its disk before it answers, 1 if it was promoted, the generation that the process knew, how many beats it had seen, a
#: new generation, the run that the process knew. The answer: the generation.
#:
#: The generation stays as long as the run of the server lasts. It outlives a restart only if nothing can be lost: the
#: server had each write on its disk, it was no replica before, and a process that saw the former run vouches that the
#: beats that it saw are there: the server did not come back with an older file. A process that comes later knows better
#: if it saw more beats of the former run than the server had at its start (`base`).
ENTER = Script("""
local known = redis.call('HMGET', KEYS[1], 'generation', 'run', 'durable', 'beats', 'base')
local generation, beats, base = known[1], tonumber(known[4] or 0), tonumber(known[5] or 0)
local seen = tonumber(ARGV[5])
if known[2] ~= ARGV[1] then
  base = beats
  local whole = generation and known[3] == '1' and ARGV[3] == '0' and generation == ARGV[4]
  if not (whole and beats >= seen) then generation = ARGV[6] end
elseif generation == ARGV[4] and ARGV[7] ~= ARGV[1] and seen > base then
  generation = ARGV[6]
end
redis.call('HSET', KEYS[1], 'generation', generation, 'run', ARGV[1], 'durable', ARGV[2], 'base', base)
return generation
""")

#: A process is alive. KEYS: the hash of the generation. ARGV: the generation, 1 if the server has each write on its
#: disk. The answer: the beats of all processes; nothing if the generation is another.
BEAT = Script("""
if redis.call('HGET', KEYS[1], 'generation') ~= ARGV[1] then return false end
redis.call('HSET', KEYS[1], 'durable', ARGV[2])
return redis.call('HINCRBY', KEYS[1], 'beats', 1)
""")

#: Members of a channel at one process come, and others go. KEYS: the sorted set of processes, the hash of this one's
#: members, the number of its last request. ARGV: the process, the milliseconds after which its members expire, 1 if
#: there are no others, the number of the request, the number of those that go, these, then clients and records of those
#: that come. The answer: the number of members in the hash.
#:
#: A request whose connection was lost may arrive after later ones: it changes nothing.
MEMBERS = Script("""
if tonumber(redis.call('GET', KEYS[3]) or 0) >= tonumber(ARGV[4]) then
  return redis.error_reply('LATE a later request was answered before')
end
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
if ARGV[3] == '1' then redis.call('DEL', KEYS[2]) end
redis.call('SET', KEYS[3], ARGV[4], 'PX', ARGV[2])
local gone = tonumber(ARGV[5])
for index = 6, 5 + gone do redis.call('HDEL', KEYS[2], ARGV[index]) end
for index = 6 + gone, #ARGV, 2 do redis.call('HSET', KEYS[2], ARGV[index], ARGV[index + 1]) end
local count = redis.call('HLEN', KEYS[2])
if count > 0 then
  redis.call('PEXPIRE', KEYS[2], ARGV[2])
  redis.call('ZADD', KEYS[1], string.format('%.0f', now + ARGV[2]), ARGV[1])
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
else
  redis.call('ZREM', KEYS[1], ARGV[1])
end
return count
""")

#: The members of a channel at all processes. KEYS: the sorted set of processes. ARGV: what the keys of their hashes
#: begin with. The answer: the records.
PRESENCE = Script("""
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local found = {}
for _, node in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], string.format('%.0f', now), '+inf')) do
  for _, record in ipairs(redis.call('HVALS', ARGV[1] .. node)) do found[#found + 1] = record end
end
return found
""")

SCRIPTS = (PUBLISH, PUBLISH_UNKEPT, READ, REMOVE, ENTER, BEAT, MEMBERS, PRESENCE)
