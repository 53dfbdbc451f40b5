-- Claims an attempt, or replaces its value (if ARGV[3] is empty). A value is kept after the time when it expires, in
-- decimal, and a space: prune.lua reads that.
-- KEYS: 1 attempt, 2 expiry
-- ARGV: 1 now, 2 value, 3 when it expires, 4 until when Redis keeps it, 5 its member in the expiry list
local v = redis.call('GET', KEYS[1])
local till = v and string.match(v, '^%d+')
local lives = till and tonumber(ARGV[1]) < tonumber(till)
if ARGV[3] == '' then
  if not lives then return {'not found'} end
  redis.call('SET', KEYS[1], till .. ' ' .. ARGV[2], 'KEEPTTL')
  return {'kept'}
end
if lives then return {'held', string.sub(v, #till + 2)} end
redis.call('SET', KEYS[1], ARGV[3] .. ' ' .. ARGV[2], 'PXAT', ARGV[4])
redis.call('ZADD', KEYS[2], ARGV[3], ARGV[5])
return {'kept'}
