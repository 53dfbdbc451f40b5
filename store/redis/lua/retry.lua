-- Makes a notice due at a time, with another deadline, and a dead letter a notice again. One that is leased stays so. Answers
-- its lane, if there is such a notice.
-- KEYS: 1 notice    ARGV: 1 id, 2 due, 3 deadline as it is in a template, 4 start of the keys of the bucket, 5 bells
local n = redis.call('HMGET', KEYS[1], 'q', 't')
local id, lane, template, start = ARGV[1], n[1], n[2], ARGV[4]
if not lane then return '' end
check_lane(start, ARGV[5], lane)
local dead = redis.call('ZREM', start .. 'g' .. lane, id) == 1 -- first: see end.lua
redis.call('HSET', KEYS[1], 'd', ARGV[2], 't', string.sub(template, 1, -9) .. ARGV[3])
if dead then
  redis.call('HDEL', KEYS[1], 'g')
  redis.call('ZADD', start .. 'o' .. lane, created(template), id)
end
if not redis.call('ZSCORE', start .. 'e' .. lane, id) then redis.call('ZADD', start .. 'd' .. lane, ARGV[2], id) end
if ARGV[5] ~= '' then ring(ARGV[5] .. lane, string.sub(id, 1, 2), ARGV[2]) end
return lane
