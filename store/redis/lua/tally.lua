-- Counts the notices of a bucket, lane by lane: lane, name, pending, dead, when the oldest was created and when there is
-- something to be done next.
-- KEYS: 1 lanes    ARGV: 1 start of the keys of the bucket
local lanes = redis.call('HGETALL', KEYS[1])
local answer = {}
for i = 1, #lanes, 2 do
  local pending, dead = ARGV[1] .. 'o' .. lanes[i], ARGV[1] .. 'g' .. lanes[i]
  answer[#answer + 1] = {lanes[i], lanes[i + 1], tostring(redis.call('ZCARD', pending)), tostring(redis.call('ZCARD', dead)),
    redis.call('ZRANGE', pending, 0, 0, 'WITHSCORES')[2] or '', upcoming(ARGV[1], lanes[i])}
end
return answer
