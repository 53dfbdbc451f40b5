-- Replaces what may change of a session, and its sids, unless a mark in its bucket bars it.
-- KEYS: 1 session, 2 expiry, 3 index, 4 index of former sids, 5 tags, then the marks that may name it, and on one server
--       the pointers from its sids
-- ARGV: 1 now, 2 revision as stored, 3 began, 4 the new session, 5 when it expires, 6 tag, 7 rest of the key,
--       8 until when Redis keeps the session, 9 until when Redis keeps the indexes, 12 how many marks there are,
--       13 the tag as a number, 14 until when Redis keeps the pointers; 10 and 11 are for create.lua
local v = redis.call('GET', KEYS[1])
if not v or not lives(v, tonumber(ARGV[1])) then return 'not found' end
if string.sub(v, 2, 9) ~= ARGV[2] then return 'conflict' end
local pointers = 6 + ARGV[12]
for i = 6, pointers - 1 do
  local at = redis.call('GET', KEYS[i])
  if at and tonumber(at) >= tonumber(ARGV[3]) then return 'ended' end
end
for i = 2, 4 do redis.call('ZCARD', KEYS[i]) end -- if a key cannot be used, fail before anything is written
point(KEYS, pointers, ARGV[13], ARGV[14]) -- first: without its session, a pointer does no harm
local new = string.sub(ARGV[4], 1, 42) .. string.sub(v, 43, 50) .. string.sub(ARGV[4], 51)
redis.call('SET', KEYS[1], new, 'PXAT', ARGV[8])
redis.call('ZADD', KEYS[2], ARGV[5], hint(new) .. ARGV[6] .. ARGV[7])
redis.call('ZADD', KEYS[3], 0, hint(new) .. ARGV[7])
if hint(v) ~= hint(new) then
  redis.call('ZREM', KEYS[2], hint(v) .. ARGV[6] .. ARGV[7])
  redis.call('ZREM', KEYS[3], hint(v) .. ARGV[7])
end
keep(KEYS[3], tonumber(ARGV[9]))
local stays = {[hint(new)] = true}
former(new, function(hint) stays[hint] = true end)
former(v, function(hint)
  if not stays[hint] then redis.call('ZREM', KEYS[4], hint .. ARGV[7]) end
end)
list_former(KEYS[4], ARGV[7], new, tonumber(ARGV[9]))
return 'updated'
