-- Begins an ending that takes several steps: claims its jti for a while, leaves the mark of the sid and reads its
-- pointer.
-- KEYS: 1 expiry, 2 jti, 3 claim, 4 mark, 5 pointer; the last three are always given, even if they are not needed
-- ARGV: 1 now, 2 owner of the claim, empty without a jti, 3 how long the claim holds in milliseconds,
--       4 name of the mark, empty for none, 5 when the mark expires, 6 until when Redis keeps it,
--       7 key prefix of the bucket, 8 how long the trace is kept
if ARGV[2] ~= '' then
  local till = redis.call('GET', KEYS[2])
  if till and tonumber(ARGV[1]) < tonumber(till) then return {'replayed'} end
  local owner = redis.call('GET', KEYS[3])
  if owner and owner ~= ARGV[2] then return {'busy'} end
end
local at, marked = redis.call('GET', KEYS[4]), mark_time(ARGV[1])
local tags = redis.call('SMEMBERS', KEYS[5])
redis.call('ZCARD', KEYS[1])
redis.call('ZREM', KEYS[1], '') -- see end.lua
leave_trace(ARGV[7], ARGV[8])
if ARGV[2] ~= '' then redis.call('SET', KEYS[3], ARGV[2], 'PX', ARGV[3]) end
if ARGV[4] ~= '' and (not at or tonumber(at) < tonumber(marked)) then
  leave_mark(KEYS[1], KEYS[4], 'm' .. ARGV[4], at, marked, ARGV[5], ARGV[6])
end
return {'begun', tags}
