-- Records the jti of an ending of several steps, now that all of them are done.
-- KEYS: 1 expiry, 2 jti, 3 claim
-- ARGV: 1 now, 2 owner of the claim, 3 when the jti expires, 4 until when Redis keeps it, 5 name of the jti
local till = redis.call('GET', KEYS[2])
if till and tonumber(ARGV[1]) < tonumber(till) then return 'replayed' end
if redis.call('GET', KEYS[3]) ~= ARGV[2] then return 'busy' end
redis.call('ZCARD', KEYS[1])
redis.call('UNLINK', KEYS[3])
redis.call('SET', KEYS[2], ARGV[3], 'PXAT', ARGV[4])
redis.call('ZADD', KEYS[1], ARGV[3], 'j' .. ARGV[5])
return 'confirmed'
