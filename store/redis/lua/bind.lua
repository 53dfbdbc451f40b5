-- Binds a jti to the one ending that it may carry out. Only on a Cluster, where the record of the jti is in the slot of
-- that ending and another ending with the same jti would not see it.
-- KEYS: 1 binding, 2 expiry
-- ARGV: 1 now, 2 the ending, 3 when the jti runs out, 4 until when Redis keeps it, 5 name of the jti, 6 an ending whose
--       binding is to be replaced
-- Answers whom it is bound to, for how long that has been so, and when it runs out.
local v = redis.call('GET', KEYS[1])
redis.call('ZCARD', KEYS[2])
redis.call('ZREM', KEYS[2], '') -- see end.lua
if v then
  local till, since, whose = string.match(v, '^(%-?%d+) (%d+) (%x+)$')
  if tonumber(ARGV[1]) < tonumber(till) and whose ~= ARGV[6] then
    if whose ~= ARGV[2] then return {whose, clock() - tonumber(since), till} end
    -- It is tried again, and may be a replay: when the record runs out is as it was.
    redis.call('SET', KEYS[1], till .. ' ' .. string.format('%.0f', clock()) .. ' ' .. whose, 'KEEPTTL')
    return {whose, 0, till}
  end
end
redis.call('SET', KEYS[1], ARGV[3] .. ' ' .. string.format('%.0f', clock()) .. ' ' .. ARGV[2], 'PXAT', ARGV[4])
redis.call('ZADD', KEYS[2], ARGV[3], 'w' .. ARGV[5])
return {ARGV[2], 0, ARGV[3]}
