-- Makes a notice due at a time, with another deadline and no attempts. A dead letter becomes a pending notice again. A
-- leased notice stays leased. Returns the queue, or 'no notice'.
-- KEYS: 1 notice
-- ARGV: 1 id, 2 due, 3 deadline as in a template, 4 key prefix of the bucket, 5 key prefix of wake-ups
local n = redis.call('HMGET', KEYS[1], 'q', 't')
local id, queue, template, prefix = ARGV[1], n[1], n[2], ARGV[4]
if not queue then return 'no notice' end
check_queue(prefix, ARGV[5], queue)
local dead = redis.call('ZREM', prefix .. 'g' .. queue, id) == 1 -- first: see end.lua
redis.call('HSET', KEYS[1], 'a', 0, 'd', ARGV[2], 't', string.sub(template, 1, -9) .. ARGV[3])
if dead then
  redis.call('HDEL', KEYS[1], 'g')
  redis.call('ZADD', prefix .. 'o' .. queue, created(template), id)
end
if not redis.call('ZSCORE', prefix .. 'e' .. queue, id) then redis.call('ZADD', prefix .. 'd' .. queue, ARGV[2], id) end
if ARGV[5] ~= '' then wake(ARGV[5] .. queue, string.sub(id, 1, 2), ARGV[2]) end
return queue
