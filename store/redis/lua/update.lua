-- Replaces what may change of a session.
-- KEYS: 1 session, 2 expiry, 3 index, 4 index of former sids, then on one server the pointers from its sids, if they
--       are to be renewed
-- ARGV: 1 now, 2 revision as stored, 3 the new head, 4 the new payload, 5 when it expires, 6 the key,
--       7 until when Redis keeps the session, 8 until when Redis keeps the indexes,
--       9 until when the pointers are certain to exist, in microseconds, or empty if they are not renewed, 10 the tag
--       as a number, 11 until when Redis keeps the pointers
local v = redis.call('GET', KEYS[1])
if not v or not lives(v, tonumber(ARGV[1])) then return {'not found'} end
if string.sub(v, 2, 9) ~= ARGV[2] then return {'conflict'} end
local till = string.sub(v, 34, 41)
if tonumber(ARGV[5]) > pointed(v) then
  -- The pointers have to be renewed. The caller needs the sids for that.
  if ARGV[9] == '' then return {'point', string.sub(v, 1, payload_at(v) - 1)} end
  till = struct.pack('>i8', tonumber(ARGV[9]))
end
for i = 2, 4 do redis.call('ZCARD', KEYS[i]) end -- if a key cannot be used, fail before anything is written
point(KEYS, 5, ARGV[10], ARGV[11]) -- first: without its session, a pointer does no harm
local new = string.sub(v, 1, 1) .. string.sub(ARGV[3], 2, 33) .. till .. string.sub(ARGV[3], 42, 42)
  .. string.sub(v, 43, payload_at(v) - 1) .. ARGV[4]
redis.call('SET', KEYS[1], new, 'PXAT', ARGV[7])
-- A later expiry is not entered here: Prune finds the session at its old time and moves it. So it is moved once, and
-- not at each update.
redis.call('ZADD', KEYS[2], 'LT', ARGV[5], hint(v) .. ARGV[6])
keep(KEYS[3], tonumber(ARGV[8]))
if payload_at(v) > 63 + names_length(v) then keep(KEYS[4], tonumber(ARGV[8])) end
return {'updated'}
