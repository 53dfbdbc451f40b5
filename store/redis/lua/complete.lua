-- Settles a notice for the one who holds its lease.
-- KEYS: 1 notice    ARGV: 1 lease, 2 outcome, 3 id, 4 when due again, 5 reason, 6 start of the keys of the bucket, 7 wakeups
local n = redis.call('HMGET', KEYS[1], 'l', 'q', 't')
if n[1] ~= ARGV[1] then return 'lost' end
local id, queue, start = ARGV[3], n[2], ARGV[6]
check_queue(start, ARGV[7], queue)
if ARGV[2] == 'done' then
  forget(start, queue, id)
  return 'settled'
end
redis.call('ZREM', start .. 'd' .. queue, id)
redis.call('ZREM', start .. 'e' .. queue, id)
redis.call('HDEL', KEYS[1], 'l')
redis.call('HSET', KEYS[1], 'r', ARGV[5])
if ARGV[2] == 'retry' then
  redis.call('HSET', KEYS[1], 'd', ARGV[4])
  redis.call('ZADD', start .. 'd' .. queue, ARGV[4], id)
  if ARGV[7] ~= '' then wake(ARGV[7] .. queue, string.sub(id, 1, 2), ARGV[4]) end
else
  redis.call('HSET', KEYS[1], 'g', 1)
  redis.call('ZREM', start .. 'o' .. queue, id)
  redis.call('ZADD', start .. 'g' .. queue, created(n[3]), id)
end
return 'settled'
