-- Removes a batch of expired entries from one bucket. Returns how many were removed, and how many were read.
-- KEYS: 1 expiry, 2 tags
-- ARGV: 1 now, 2 key prefix of the bucket, 3 size of a batch, 4 how long marks hold, in microseconds
local now, prefix = tonumber(ARGV[1]), ARGV[2]
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'LIMIT', 0, ARGV[3])
local removed = 0
redis.call('ZREM', KEYS[1], '') -- see end.lua
for i = 1, #due do
  local m = due[i]
  local key, later, v
  if #m == 44 then
    key = prefix .. 's' .. string.sub(m, 9)
    v = redis.call('GET', key)
    later = v and runs_out(v)
  else
    key = prefix .. m -- the member begins with the letter of its kind
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
      unlist(KEYS[1], KEYS[2], prefix .. 'u' .. tag, prefix .. 'k' .. tag, tag,
        string.sub(m, 1, 8), string.sub(m, 13), v)
    end
    redis.call('ZREM', KEYS[1], m)
    redis.call('UNLINK', key)
  end
end
return {removed, #due}
