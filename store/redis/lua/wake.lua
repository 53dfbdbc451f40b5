-- Sets a wake-up on a Cluster, where it is in another slot than the notice.
-- KEYS: 1 wake-ups
-- ARGV: 1 bucket, 2 when a notice is due
redis.call('HDEL', KEYS[1], '') -- see end.lua
wake(KEYS[1], ARGV[1], ARGV[2])
return 'set'
