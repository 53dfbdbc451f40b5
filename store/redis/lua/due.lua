-- Lists the notices of a queue that are due, including those whose lease has expired, which it puts back first.
-- KEYS: 1 due, 2 leased
-- ARGV: 1 now, 2 how many at most, 3 key prefix of the bucket, 4 queue
-- Returns when the next notice of the queue is due, and then each id and when it was due.
local expired = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', ARGV[1], 'LIMIT', 0, 1000)
for i = 1, #expired do
  local at = redis.call('HGET', ARGV[3] .. 'n' .. expired[i], 'd')
  redis.call('ZREM', KEYS[2], expired[i]) -- first: see end.lua
  if at then redis.call('ZADD', KEYS[1], at, expired[i]) end
end
local answer = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'WITHSCORES', 'LIMIT', 0, ARGV[2])
table.insert(answer, 1, upcoming(ARGV[3], ARGV[4]))
return answer
