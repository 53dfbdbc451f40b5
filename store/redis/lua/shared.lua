-- Functions for all scripts. This file is put before each of them. record.go describes how a session is encoded. Where
-- ARGV has "until when Redis keeps" something, the time is in milliseconds since 1970.

local function field(v, at) return (struct.unpack('>i8', v, at)) end
local function idle_expires(v) return field(v, 18) end
local function expires(v) return field(v, 26) end
local function pointed(v) return field(v, 34) end
local function hint(v) return string.sub(v, 51, 58) end
local function refresh(v) return string.byte(v, 42) end
local function names_length(v) return (struct.unpack('>I4', v, 59)) end
-- names returns the names preceded by their length, which is their form in answers, messages and notices.
local function names(v) return string.sub(v, 59, 62 + names_length(v)) end

-- A session of version 2 has its former sids before its payload. payload_at returns where the payload begins. former
-- calls fn with the hint of each former sid, and with the sid preceded by its length.
local function payload_at(v)
  local at = 63 + names_length(v)
  return string.byte(v) == 2 and at + 4 + struct.unpack('>I4', v, at) or at
end
local function former(v, fn)
  local at, stop = 67 + names_length(v), payload_at(v)
  while at < stop do
    local after = at + 12 + struct.unpack('>I4', v, at + 8)
    fn(string.sub(v, at, at + 7), string.sub(v, at + 8, after - 1))
    at = after
  end
end

local function runs_out(v) return math.min(idle_expires(v), expires(v)) end
local function lives(v, now) return now < runs_out(v) end

-- clock returns Redis's time, in milliseconds. It is used only for how long entries are kept and how old a binding is.
local function clock()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

-- mark_time returns the time for an end mark, in microseconds: the caller's, or Redis's if that is later.
local function mark_time(now)
  local t = redis.call('TIME')
  return string.format('%.0f', math.max(tonumber(now), t[1] * 1000000 + t[2]))
end

-- keep makes Redis keep a key at least until a time, in milliseconds since 1970.
local function keep(key, till)
  local left = redis.call('PTTL', key)
  if left < 0 or clock() + left < till then redis.call('PEXPIREAT', key, till) end
end

-- point adds a tag to the pointers from the sids of a session, which are the keys from one on, and keeps them.
local function point(keys, from, tag, till)
  for i = from, #keys do
    redis.call('SADD', keys[i], tag)
    keep(keys[i], tonumber(till))
  end
end

-- leave_mark sets an end mark, in the list of what expires too, and never makes Redis keep it for a shorter time. before
-- is the mark that is there, if any.
local function leave_mark(list, key, member, before, marked, expiry, till)
  local left = before and redis.call('PTTL', key) or 0
  if left > 0 then till = math.max(tonumber(till), clock() + left) end
  redis.call('SET', key, marked, 'PXAT', string.format('%.0f', till))
  redis.call('ZADD', list, 'GT', expiry, member)
end

-- unlist removes a session from the indexes of its bucket. hint is that of the sid by which it was found. v is the
-- session, or nil if it no longer exists. Only a session of version 2 is in the index of former sids, which is nil if it
-- is known to be empty.
local function unlist(expiry, tags, index, former_index, tag, hint, rest, v)
  redis.call('ZREM', expiry, hint .. tag .. rest)
  redis.call('ZREM', index, hint .. rest)
  if former_index then
    if not v or string.byte(v) == 2 then redis.call('ZREM', former_index, hint .. rest) end
    if v then former(v, function(hint) redis.call('ZREM', former_index, hint .. rest) end) end
  end
  if redis.call('EXISTS', index) == 0 then
    redis.call('ZREM', tags, tag)
    if former_index then redis.call('UNLINK', former_index) end -- it may still hold sessions that expired in Redis
  end
end

-- list_former adds a session to the index of former sids. When a former sid becomes the session's sid again, it stays
-- in this index. So a caller that reads the other index first, and this one after it, always finds the session.
local function list_former(former_index, rest, v, till)
  former(v, function(hint)
    redis.call('ZADD', former_index, 0, hint .. rest)
    keep(former_index, till)
  end)
end

-- leave_trace always writes something if a script is to be acknowledged by replicas, which is when keep is not empty:
-- it is in milliseconds. A script that is run again may have nothing left to write, and then WAIT, which waits for the
-- last write of the connection, would wait for nothing.
local function leave_trace(prefix, keep)
  if keep ~= '' then redis.call('SET', prefix .. 'x', '', 'PX', keep) end
end
