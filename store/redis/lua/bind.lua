-- Binds a jti to the only ending that it may carry out. Only on a Cluster, where the record of the jti is in the slot
-- of that ending, and another ending with the same jti would not find it.
-- KEYS: 1 binding, 2 expiry
-- ARGV: 1 now, 2 the ending, 3 when the jti expires, 4 until when Redis keeps the binding, 5 name of the jti,
--       6 an ending whose binding is to be replaced
-- Returns which ending the jti is bound to, for how many milliseconds it has been, and when the binding expires.
local v = redis.call('GET', KEYS[1])
redis.call('ZCARD', KEYS[2])
redis.call('ZREM', KEYS[2], '') -- see end.lua
if v then
  local till, since, ending = string.match(v, '^(%-?%d+) (%d+) (%x+)$')
  if tonumber(ARGV[1]) < tonumber(till) and ending ~= ARGV[6] then
    if ending ~= ARGV[2] then return {ending, clock() - tonumber(since), till} end
    -- The same ending again, which may be a replay. So the expiry stays as it was.
    redis.call('SET', KEYS[1], till .. ' ' .. string.format('%.0f', clock()) .. ' ' .. ending, 'KEEPTTL')
    return {ending, 0, till}
  end
end
redis.call('SET', KEYS[1], ARGV[3] .. ' ' .. string.format('%.0f', clock()) .. ' ' .. ARGV[2], 'PXAT', ARGV[4])
redis.call('ZADD', KEYS[2], ARGV[3], 'w' .. ARGV[5])
return {ARGV[2], 0, ARGV[3]}
