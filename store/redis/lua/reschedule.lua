-- Says of some buckets when there is something to be done next, unless it was set since they were looked at.
-- KEYS: 1 wakeup    ARGV: for each: bucket, what the wake-up said, when, or nothing
for i = 1, #ARGV, 3 do
  if redis.call('HGET', KEYS[1], ARGV[i]) == ARGV[i + 1] then
    if ARGV[i + 2] == '' then
      redis.call('HDEL', KEYS[1], ARGV[i])
    else
      redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 2] .. ' ' .. redis.call('HINCRBY', KEYS[1], '#', 1))
    end
  end
end
return 'rescheduled'
