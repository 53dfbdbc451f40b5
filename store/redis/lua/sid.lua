-- Ends the sessions that a sid, or a sid and a subject, name, on one server, where all steps of such an ending can be
-- done at once (see steps.go). It leaves the mark of the sid and reads its pointer; end.lua, which is put after it, does
-- the rest for one tag: that of the subject, or the one in the pointer. If the pointer has another, or if another ending
-- has claimed the jti, it changes nothing and answers 'steps'.
-- KEYS: 1 expiry of the sid's bucket, 2 mark, 3 pointer; if there is a jti: 4 jti, 5 expiry of its bucket, 6 claim
-- ARGV: 1 prefix of all keys, 2 name of the mark, 3 tag of the subject, empty without one, then those of end.lua, with
--       any tag if there is no subject
local keys, args = KEYS, ARGV
local KEYS, ARGV = {}, {unpack(args, 4)}
local before, till, claim = unpack(redis.call('MGET', keys[2], keys[4] or keys[2], keys[6] or keys[2]))
if #keys > 3 then
  if till and tonumber(ARGV[1]) < tonumber(till) then return {'replayed'} end
  if claim then return {'steps'} end
end
local tags, tag = redis.call('SMEMBERS', keys[3]), args[3]
local pointed = tags[1] and struct.pack('>I4', tags[1]) or tag
if #tags > 1 or tag ~= '' and pointed ~= tag then return {'steps'} end
tag = pointed
if tag == '' then tag = ARGV[3] end -- nobody has the sid: nothing is found in whatever bucket
local at = string.byte(tag)
local number = string.format('%02x', at)
local prefix = args[1] .. '{' .. number .. string.sub(spread, 2 * at + 1, 2 * at + 2) .. '}'
ARGV[2], ARGV[3] = prefix, tag
ARGV[18] = string.sub(ARGV[18], 1, 16) .. string.char(at) .. string.sub(ARGV[18], 18)
ARGV[19] = number .. string.sub(ARGV[19], 3)
KEYS = {prefix .. 'q', prefix .. 'u' .. tag, prefix .. 't', prefix .. 'l', prefix .. 'y', keys[4], keys[5]}

did = {jti = true, marked = mark_time(ARGV[1])}
if not before or tonumber(before) < tonumber(did.marked) then
  redis.call('ZREM', keys[1], '') -- see end.lua
  did.wrote = true
  leave_mark(keys[1], keys[2], 'm' .. args[2], before, did.marked, ARGV[11], ARGV[12])
end
