-- Counts the notices of a bucket, queue by queue: queue, name, pending, dead, when the oldest was created and when there is
-- something to be done next.
-- KEYS: 1 queues    ARGV: 1 start of the keys of the bucket
local queues = redis.call('HGETALL', KEYS[1])
local answer = {}
for i = 1, #queues, 2 do
  local pending, dead = ARGV[1] .. 'o' .. queues[i], ARGV[1] .. 'g' .. queues[i]
  answer[#answer + 1] = {queues[i], queues[i + 1], tostring(redis.call('ZCARD', pending)), tostring(redis.call('ZCARD', dead)),
    redis.call('ZRANGE', pending, 0, 0, 'WITHSCORES')[2] or '', upcoming(ARGV[1], queues[i])}
end
return answer
