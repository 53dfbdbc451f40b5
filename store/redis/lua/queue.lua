-- Functions for the scripts about notices. This file is put before each of them, after shared.lua.
--
-- A queue is the notices of one kind for one target; its name is a hash of both. In a bucket it has four sorted sets:
-- the notices that wait (d, by when they are due), those that are leased (e, by when the lease ends), all of these
-- (o, by when they were created), and the dead letters (g, by the same). A hash (y) holds kind and target of each queue
-- of the bucket. wakeup.go explains wake-ups. On one server they are set here, and wakeups is the prefix of their keys.
-- On a Cluster they are in other slots, and wakeups is empty.

local function created(template) return (struct.unpack('>i8', template, #template - 15)) end

-- queue_name returns kind and target with their lengths, which are the beginning of a template.
local function queue_name(template)
  local n = (struct.unpack('>I4', template))
  return string.sub(template, 1, 8 + n + (struct.unpack('>I4', template, n + 5)))
end

-- wake sets the wake-up of a bucket to a time, unless it is set to an earlier one. Each call writes a new value, so
-- that reschedule.lua can tell whether it was set since it was read.
local function wake(wakeup, bucket, at)
  local v = redis.call('HGET', wakeup, bucket)
  local before = v and string.match(v, '^%-?%d+')
  if before and tonumber(before) < tonumber(at) then at = before end
  redis.call('HSET', wakeup, bucket, at .. ' ' .. redis.call('HINCRBY', wakeup, '#', 1))
end

-- check_queue fails if writing to a queue would fail.
local function check_queue(prefix, wakeups, queue)
  for _, letter in ipairs({'d', 'e', 'o', 'g'}) do redis.call('ZCARD', prefix .. letter .. queue) end
  redis.call('HLEN', prefix .. 'y')
  if wakeups ~= '' then redis.call('HLEN', wakeups .. queue) end
end

-- enqueue puts a new notice into its queue. about holds the names of the session.
local function enqueue(prefix, queue, id, due, template, key, about, payload)
  redis.call('HSET', prefix .. 'n' .. id,
    't', template, 'k', key, 's', about, 'p', payload, 'a', 0, 'd', due, 'q', queue)
  redis.call('ZADD', prefix .. 'd' .. queue, due, id)
  redis.call('ZADD', prefix .. 'o' .. queue, created(template), id)
  redis.call('HSET', prefix .. 'y', queue, queue_name(template))
end

-- forget removes a notice.
local function forget(prefix, queue, id)
  for _, letter in ipairs({'d', 'e', 'o', 'g'}) do redis.call('ZREM', prefix .. letter .. queue, id) end
  redis.call('UNLINK', prefix .. 'n' .. id)
  if redis.call('EXISTS', prefix .. 'o' .. queue, prefix .. 'g' .. queue) == 0 then
    redis.call('HDEL', prefix .. 'y', queue)
  end
end

-- upcoming returns when the next notice of a queue is due or loses its lease, or the empty string.
local function upcoming(prefix, queue)
  local due = redis.call('ZRANGE', prefix .. 'd' .. queue, 0, 0, 'WITHSCORES')[2]
  local lease_end = redis.call('ZRANGE', prefix .. 'e' .. queue, 0, 0, 'WITHSCORES')[2]
  if not due or lease_end and tonumber(lease_end) < tonumber(due) then due = lease_end end
  return due or ''
end
