-- Counts the notices of a bucket. Returns for each queue: its name, kind and target, pending, dead, when the oldest
-- pending one was created, and when the next one is due.
-- KEYS: 1 queues
-- ARGV: 1 key prefix of the bucket
local queues = redis.call('HGETALL', KEYS[1])
local answer = {}
for i = 1, #queues, 2 do
  local pending, dead = ARGV[1] .. 'o' .. queues[i], ARGV[1] .. 'g' .. queues[i]
  answer[#answer + 1] = {queues[i], queues[i + 1],
    tostring(redis.call('ZCARD', pending)), tostring(redis.call('ZCARD', dead)),
    redis.call('ZRANGE', pending, 0, 0, 'WITHSCORES')[2] or '', upcoming(ARGV[1], queues[i])}
end
return answer
