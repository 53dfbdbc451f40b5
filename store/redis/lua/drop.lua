-- Forgets a notice, undone. Answers whether there was one.
-- KEYS: 1 notice    ARGV: 1 id, 2 start of the keys of the bucket
local queue = redis.call('HGET', KEYS[1], 'q')
if not queue then return '' end
check_queue(ARGV[2], '', queue)
forget(ARGV[2], queue, ARGV[1])
return 'dropped'
