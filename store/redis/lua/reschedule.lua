-- Sets the wake-ups of some buckets to when the next notice there is due, or removes them, unless they were set again
-- since they were read.
-- KEYS: 1 wake-ups
-- ARGV: for each bucket: its number, its wake-up as it was read, the new time or an empty string
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
