-- Lists the notices of a queue that are due, after it has put those back whose lease has run out.
-- KEYS: 1 due, 2 leased    ARGV: 1 now, 2 at most so many, 3 start of the keys of the bucket, 4 queue
-- Answers when there is something to be done next in the queue, and then each id and when it was due.
local back = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', ARGV[1], 'LIMIT', 0, 1000)
for i = 1, #back do
  local at = redis.call('HGET', ARGV[3] .. 'n' .. back[i], 'd')
  redis.call('ZREM', KEYS[2], back[i]) -- first: see end.lua
  if at then redis.call('ZADD', KEYS[1], at, back[i]) end
end
local answer = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'WITHSCORES', 'LIMIT', 0, ARGV[2])
table.insert(answer, 1, upcoming(ARGV[3], ARGV[4]))
return answer
