-- Records the outcome of a notice, if the given lease holds it.
-- KEYS: 1 notice
-- ARGV: 1 lease, 2 outcome, 3 id, 4 when due again, 5 reason, 6 key prefix of the bucket, 7 key prefix of wake-ups,
-- 8 how many attempts to take back
local n = redis.call('HMGET', KEYS[1], 'l', 'q', 't', 'a')
if n[1] ~= ARGV[1] then return 'lost' end
local id, queue, prefix = ARGV[3], n[2], ARGV[6]
check_queue(prefix, ARGV[7], queue)
if ARGV[2] == 'done' then
  forget(prefix, queue, id)
  return 'completed'
end
local attempts = math.max(0, n[4] - ARGV[8]) -- before any write, since it fails if the notice is damaged
redis.call('ZREM', prefix .. 'd' .. queue, id)
redis.call('ZREM', prefix .. 'e' .. queue, id)
redis.call('HDEL', KEYS[1], 'l')
redis.call('HSET', KEYS[1], 'r', ARGV[5], 'a', attempts)
if ARGV[2] == 'retry' then
  redis.call('HSET', KEYS[1], 'd', ARGV[4])
  redis.call('ZADD', prefix .. 'd' .. queue, ARGV[4], id)
  if ARGV[7] ~= '' then wake(ARGV[7] .. queue, string.sub(id, 1, 2), ARGV[4]) end
else
  redis.call('HSET', KEYS[1], 'g', 1)
  redis.call('ZREM', prefix .. 'o' .. queue, id)
  redis.call('ZADD', prefix .. 'g' .. queue, created(n[3]), id)
end
return 'completed'
