-- Replaces what may change of a session.
-- KEYS: 1 session, 2 queue, 3 index
-- ARGV: 1 now, 2 revision as stored, 3 the new head, 4 the new payload, 5 when it runs out, 6 the key,
--       7 until when Redis keeps the session and 8 the index, 9 until when the pointer is sure to be kept, in microseconds,
--       if that was seen to
local v = redis.call('GET', KEYS[1])
if not v or not lives(v, tonumber(ARGV[1])) then return {'not found'} end
if string.sub(v, 2, 9) ~= ARGV[2] then return {'conflict'} end
local till = string.sub(v, 34, 41)
if tonumber(ARGV[5]) > pointed(v) then
  -- The pointer has to last longer first: it may be in another slot.
  if ARGV[9] == '' then return {'point', names(v)} end
  till = struct.pack('>i8', tonumber(ARGV[9]))
end
for i = 2, 3 do redis.call('ZCARD', KEYS[i]) end -- what would fail is to fail before anything is written
local new = string.sub(ARGV[3], 1, 33) .. till .. string.sub(ARGV[3], 42, 42)
  .. string.sub(v, 43, 62 + names_length(v)) .. ARGV[4]
redis.call('SET', KEYS[1], new, 'PXAT', ARGV[7])
-- A session that runs out later is found by Prune at its old time and put where it belongs: once, not at each update.
redis.call('ZADD', KEYS[2], 'LT', ARGV[5], hint(v) .. ARGV[6])
keep(KEYS[3], tonumber(ARGV[8]))
return {'updated'}
