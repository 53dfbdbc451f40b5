-- Inserts a session in its bucket, unless a mark there bars it.
-- KEYS: 1 session, 2 expiry, 3 index, 4 index of former sids, 5 tags, then the marks that may name it, and on one server
--       the pointers from its sids
-- ARGV: 3 began, 4 the session, 5 when it expires, 6 tag, 7 rest of the key, 8 until when Redis keeps the session,
--       9 until when Redis keeps the indexes, 11 how many of the marks are of the subject, 10 what 3 is for the others;
--       12 how many marks there are, 13 the tag as a number, 14 until when Redis keeps the pointers;
--       1 and 2 are for rename.lua
local pointers = 6 + ARGV[12]
for i = 6, pointers - 1 do
  local at = redis.call('GET', KEYS[i])
  if at and tonumber(at) >= tonumber(ARGV[i < 6 + ARGV[11] and 3 or 10]) then return 'ended' end
end
if redis.call('EXISTS', KEYS[1]) == 1 then return 'exists' end
for i = 2, 5 do redis.call('ZCARD', KEYS[i]) end -- if a key cannot be used, fail before anything is written
point(KEYS, pointers, ARGV[13], ARGV[14]) -- first: without its session, a pointer does no harm
local v = ARGV[4]
redis.call('SET', KEYS[1], v, 'PXAT', ARGV[8])
redis.call('ZADD', KEYS[2], ARGV[5], hint(v) .. ARGV[6] .. ARGV[7])
redis.call('ZADD', KEYS[3], 0, hint(v) .. ARGV[7])
redis.call('ZADD', KEYS[5], 0, ARGV[6])
keep(KEYS[3], tonumber(ARGV[9]))
list_former(KEYS[4], ARGV[7], v, tonumber(ARGV[9]))
return 'created'
