-- Sets a wake-up on a Cluster, where it is not in the bucket that it tells of.
-- KEYS: 1 wakeup    ARGV: 1 bucket, 2 when there is something to be done
redis.call('HDEL', KEYS[1], '') -- see end.lua
wake(KEYS[1], ARGV[1], ARGV[2])
return 'rung'
