-- Releases the claim of an ending that failed, so that the next try need not wait.
-- KEYS: 1 claim
-- ARGV: 1 owner
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('UNLINK', KEYS[1]) end
return 'released'
