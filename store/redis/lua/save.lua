-- Replaces a shared value, if its revision is still the given one.
-- KEYS: 1 value
-- ARGV: 1 revision, 2 value
if (redis.call('HGET', KEYS[1], 'r') or '0') ~= ARGV[1] then return 'conflict' end
redis.call('HSET', KEYS[1], 'r', string.format('%.0f', tonumber(ARGV[1]) + 1), 'v', ARGV[2])
return 'saved'
