-- Settles a notice for the one who holds its lease.
-- KEYS: 1 notice, 2 due, 3 leased, 4 given up    ARGV: 1 lease, 2 outcome, 3 id, 4 when due again, 5 reason
if redis.call('HGET', KEYS[1], 'l') ~= ARGV[1] then return 'lost' end
for i = 2, 4 do redis.call('ZCARD', KEYS[i]) end
redis.call('ZREM', KEYS[2], ARGV[3])
redis.call('ZREM', KEYS[3], ARGV[3])
if ARGV[2] == 'done' then
  redis.call('UNLINK', KEYS[1])
  return 'settled'
end
redis.call('HDEL', KEYS[1], 'l')
redis.call('HSET', KEYS[1], 'r', ARGV[5])
if ARGV[2] == 'retry' then
  redis.call('HSET', KEYS[1], 'd', ARGV[4])
  redis.call('ZADD', KEYS[2], ARGV[4], ARGV[3])
else
  redis.call('ZADD', KEYS[4], redis.call('HGET', KEYS[1], 'd'), ARGV[3])
end
return 'settled'
