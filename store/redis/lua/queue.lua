-- What the scripts about notices need; it comes after shared.lua. A queue is the notices of one kind for one target, under a
-- hash of both. In a bucket it has four sorted sets: those that wait (d, by when they are due), those that are leased (e, by when
-- the lease ends), all of these (o, by when they were created), and the dead letters (g, as o). The bucket's list of its
-- queues (y) holds their names. wakeup.go says what a wake-up is; on one server they are set here, and wakeups is the start of
-- their keys; on a Cluster they are elsewhere, and wakeups is empty.

local function created(template) return (struct.unpack('>i8', template, #template - 15)) end

-- queue_name is kind and target, with their lengths, as a template begins with them.
local function queue_name(template)
  local n = (struct.unpack('>I4', template))
  return string.sub(template, 1, 8 + n + (struct.unpack('>I4', template, n + 5)))
end

-- wake says that a bucket has something of a queue to be done at a time, if it did not say so of an earlier one. Each call
-- leaves another value, so that who has looked can tell whether it rang since.
local function wake(wakeup, bucket, at)
  local v = redis.call('HGET', wakeup, bucket)
  local before = v and string.match(v, '^%-?%d+')
  if before and tonumber(before) < tonumber(at) then at = before end
  redis.call('HSET', wakeup, bucket, at .. ' ' .. redis.call('HINCRBY', wakeup, '#', 1))
end

-- check_queue fails if what is to be written about a queue would.
local function check_queue(start, wakeups, queue)
  for _, letter in ipairs({'d', 'e', 'o', 'g'}) do redis.call('ZCARD', start .. letter .. queue) end
  redis.call('HLEN', start .. 'y')
  if wakeups ~= '' then redis.call('HLEN', wakeups .. queue) end
end

-- enqueue puts a new notice into its queue. What comes after the template: key and names of the session, payload.
local function enqueue(start, queue, id, due, template, key, who, what)
  redis.call('HSET', start .. 'n' .. id, 't', template, 'k', key, 's', who, 'p', what, 'a', 0, 'd', due, 'q', queue)
  redis.call('ZADD', start .. 'd' .. queue, due, id)
  redis.call('ZADD', start .. 'o' .. queue, created(template), id)
  redis.call('HSET', start .. 'y', queue, queue_name(template))
end

-- forget removes a notice.
local function forget(start, queue, id)
  for _, letter in ipairs({'d', 'e', 'o', 'g'}) do redis.call('ZREM', start .. letter .. queue, id) end
  redis.call('UNLINK', start .. 'n' .. id)
  if redis.call('EXISTS', start .. 'o' .. queue, start .. 'g' .. queue) == 0 then redis.call('HDEL', start .. 'y', queue) end
end

-- upcoming is when there is something to be done next in a queue, or the empty string.
local function upcoming(start, queue)
  local due = redis.call('ZRANGE', start .. 'd' .. queue, 0, 0, 'WITHSCORES')[2]
  local back = redis.call('ZRANGE', start .. 'e' .. queue, 0, 0, 'WITHSCORES')[2]
  if not due or back and tonumber(back) < tonumber(due) then due = back end
  return due or ''
end
