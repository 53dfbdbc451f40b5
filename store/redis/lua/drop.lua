-- Removes a notice that is not done. Returns 'no notice' if there is none.
-- KEYS: 1 notice
-- ARGV: 1 id, 2 key prefix of the bucket
local queue = redis.call('HGET', KEYS[1], 'q')
if not queue then return 'no notice' end
check_queue(ARGV[2], '', queue)
forget(ARGV[2], queue, ARGV[1])
return 'dropped'
