-- Makes a notice due at a time, with another deadline, and a dead letter a notice again. One that is leased stays so. Answers
-- its queue, if there is such a notice.
-- KEYS: 1 notice    ARGV: 1 id, 2 due, 3 deadline as it is in a template, 4 start of the keys of the bucket, 5 wakeups
local n = redis.call('HMGET', KEYS[1], 'q', 't')
local id, queue, template, start = ARGV[1], n[1], n[2], ARGV[4]
if not queue then return '' end
check_queue(start, ARGV[5], queue)
local dead = redis.call('ZREM', start .. 'g' .. queue, id) == 1 -- first: see end.lua
redis.call('HSET', KEYS[1], 'd', ARGV[2], 't', string.sub(template, 1, -9) .. ARGV[3])
if dead then
  redis.call('HDEL', KEYS[1], 'g')
  redis.call('ZADD', start .. 'o' .. queue, created(template), id)
end
if not redis.call('ZSCORE', start .. 'e' .. queue, id) then redis.call('ZADD', start .. 'd' .. queue, ARGV[2], id) end
if ARGV[5] ~= '' then wake(ARGV[5] .. queue, string.sub(id, 1, 2), ARGV[2]) end
return queue
