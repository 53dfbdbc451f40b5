-- Removes a batch of what has run out from one bucket. Answers how much was removed, and how much was looked at.
-- KEYS: 1 expiry, 2 tags
-- ARGV: 1 now, 2 start of the keys of the bucket, 3 size of a batch, 4 how long marks hold, in microseconds
local now, start = tonumber(ARGV[1]), ARGV[2]
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'LIMIT', 0, ARGV[3])
local removed = 0
redis.call('ZREM', KEYS[1], '') -- see end.lua
for i = 1, #due do
  local m = due[i]
  local key, later, v
  if #m == 44 then
    key = start .. 's' .. string.sub(m, 9)
    v = redis.call('GET', key)
    later = v and runs_out(v)
  else
    key = start .. m -- its kind is its letter
    local v = redis.call('GET', key)
    later = v and tonumber(string.match(v, '^%-?%d+'))
    if later and string.sub(m, 1, 1) == 'm' then later = later + tonumber(ARGV[4]) end
  end
  if later and later > now then
    redis.call('ZADD', KEYS[1], later, m)
  else
    removed = removed + 1
    if #m == 44 then
      local tag = string.sub(m, 9, 12)
      unlist(KEYS[1], KEYS[2], start .. 'u' .. tag, start .. 'k' .. tag, tag, string.sub(m, 1, 8), string.sub(m, 13), v)
    end
    redis.call('ZREM', KEYS[1], m)
    redis.call('UNLINK', key)
  end
end
return {removed, #due}
