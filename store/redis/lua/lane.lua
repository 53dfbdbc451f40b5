-- What the scripts about notices need; it comes after shared.lua. A lane is the notices of one kind for one target, under a
-- hash of both. In a bucket it has four queues: those that wait (d, by when they are due), those that are leased (e, by when
-- the lease ends), all of these (o, by when they were created), and the dead letters (g, as o). The bucket's list of its
-- lanes (y) holds their names. desk.go says what a bell is; on one server they are rung here, and bells is the start of
-- their keys; on a Cluster they are elsewhere, and bells is empty.

local function created(template) return (struct.unpack('>i8', template, #template - 15)) end

-- lane_name is kind and target, with their lengths, as a template begins with them.
local function lane_name(template)
  local n = (struct.unpack('>I4', template))
  return string.sub(template, 1, 8 + n + (struct.unpack('>I4', template, n + 5)))
end

-- ring says that a bucket has something of a lane to be done at a time, if it did not say so of an earlier one. Each ring
-- leaves another value, so that who has looked can tell whether it rang since.
local function ring(bell, bucket, at)
  local v = redis.call('HGET', bell, bucket)
  local before = v and string.match(v, '^%-?%d+')
  if before and tonumber(before) < tonumber(at) then at = before end
  redis.call('HSET', bell, bucket, at .. ' ' .. redis.call('HINCRBY', bell, '#', 1))
end

-- check_lane fails if what is to be written about a lane would.
local function check_lane(start, bells, lane)
  for _, letter in ipairs({'d', 'e', 'o', 'g'}) do redis.call('ZCARD', start .. letter .. lane) end
  redis.call('HLEN', start .. 'y')
  if bells ~= '' then redis.call('HLEN', bells .. lane) end
end

-- leave puts a new notice into its lane. What comes after the template: key and names of the session, payload.
local function leave(start, lane, id, due, template, key, who, what)
  redis.call('HSET', start .. 'n' .. id, 't', template, 'k', key, 's', who, 'p', what, 'a', 0, 'd', due, 'q', lane)
  redis.call('ZADD', start .. 'd' .. lane, due, id)
  redis.call('ZADD', start .. 'o' .. lane, created(template), id)
  redis.call('HSET', start .. 'y', lane, lane_name(template))
end

-- forget removes a notice.
local function forget(start, lane, id)
  for _, letter in ipairs({'d', 'e', 'o', 'g'}) do redis.call('ZREM', start .. letter .. lane, id) end
  redis.call('UNLINK', start .. 'n' .. id)
  if redis.call('EXISTS', start .. 'o' .. lane, start .. 'g' .. lane) == 0 then redis.call('HDEL', start .. 'y', lane) end
end

-- upcoming is when there is something to be done next in a lane, or the empty string.
local function upcoming(start, lane)
  local due = redis.call('ZRANGE', start .. 'd' .. lane, 0, 0, 'WITHSCORES')[2]
  local back = redis.call('ZRANGE', start .. 'e' .. lane, 0, 0, 'WITHSCORES')[2]
  if not due or back and tonumber(back) < tonumber(due) then due = back end
  return due or ''
end
