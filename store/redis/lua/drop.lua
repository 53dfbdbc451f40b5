-- Forgets a notice, undone. Answers whether there was one.
-- KEYS: 1 notice    ARGV: 1 id, 2 start of the keys of the bucket
local lane = redis.call('HGET', KEYS[1], 'q')
if not lane then return '' end
check_lane(ARGV[2], '', lane)
forget(ARGV[2], lane, ARGV[1])
return 'dropped'
