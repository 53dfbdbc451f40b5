-- What several scripts need. It is put in front of each; see record.go for how a session is kept.

local function field(v, at) return (struct.unpack('>i8', v, at)) end
local function idle_expires(v) return field(v, 18) end
local function expires(v) return field(v, 26) end
local function pointed(v) return field(v, 34) end
local function hint(v) return string.sub(v, 51, 58) end
local function refresh(v) return string.byte(v, 42) end
local function names_length(v) return (struct.unpack('>I4', v, 59)) end
-- The names with their length in front, as they go into answers, messages and notices.
local function names(v) return string.sub(v, 59, 62 + names_length(v)) end

-- A session of version 2 has its former sids before its payload. former calls fn with the hint of each and with the
-- sid, which has its length in front; payload_at is where the payload begins.
local function payload_at(v)
  local at = 63 + names_length(v)
  return string.byte(v) == 2 and at + 4 + struct.unpack('>I4', v, at) or at
end
local function former(v, fn)
  local at, over = 67 + names_length(v), payload_at(v)
  while at < over do
    local after = at + 12 + struct.unpack('>I4', v, at + 8)
    fn(string.sub(v, at, at + 7), string.sub(v, at + 8, after - 1))
    at = after
  end
end

local function runs_out(v) return math.min(idle_expires(v), expires(v)) end
local function lives(v, now) return now < runs_out(v) end

-- clock is Redis's, in milliseconds. Only what cleans up looks at it.
local function clock()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

-- mark_time is when an ending is marked, in microseconds: the caller's time, or Redis's if that is later.
local function mark_time(now)
  local t = redis.call('TIME')
  return string.format('%.0f', math.max(tonumber(now), t[1] * 1000000 + t[2]))
end

-- keep makes a key stay until a time at least, in Redis's milliseconds.
local function keep(key, till)
  local left = redis.call('PTTL', key)
  if left < 0 or clock() + left < till then redis.call('PEXPIREAT', key, till) end
end

-- unlist takes a session out of the indexes of its bucket: those of its tag are index, and had for former sids. v is
-- the session, if it is there; the hint is that under which it was found.
local function unlist(queue, tags, index, had, tag, hint, rest, v)
  redis.call('ZREM', queue, hint .. tag .. rest)
  redis.call('ZREM', index, hint .. rest)
  redis.call('ZREM', had, hint .. rest)
  if v then former(v, function(hint) redis.call('ZREM', had, hint .. rest) end) end
  if redis.call('EXISTS', index) == 0 then
    redis.call('ZREM', tags, tag)
    redis.call('UNLINK', had) -- what Redis itself cleaned up may still be there
  end
end

-- list_former puts a session into the index of former sids. It stays there under a sid that it has anew: whoever looks
-- into the other index first, and then into this, always finds it.
local function list_former(had, rest, v, till)
  former(v, function(hint)
    redis.call('ZADD', had, 0, hint .. rest)
    keep(had, till)
  end)
end

-- leave_trace writes something in any case when replicas are to acknowledge what a script did. One that is run again may
-- find nothing left to write, and WAIT, which asks for the last write of a connection, would then ask for nothing.
local function leave_trace(start, keep)
  if keep ~= '' then redis.call('SET', start .. 'x', '', 'PX', keep) end
end
