-- Binds a jti to the one ending that it may carry out. Only on a Cluster, where the record of the jti is in the slot of
-- that ending and another ending with the same jti would not see it.
-- KEYS: 1 binding, 2 queue
-- ARGV: 1 now, 2 the ending, 3 when the jti runs out, 4 until when Redis keeps it, 5 name of the jti, 6 an ending that is
--       known not to have been carried out and may be replaced
local v = redis.call('GET', KEYS[1])
if v then
  local till, since, whose = string.match(v, '^(%-?%d+) (%d+) (%x+)$')
  if tonumber(ARGV[1]) < tonumber(till) and whose ~= ARGV[2] and whose ~= ARGV[6] then
    return {whose, clock() - tonumber(since)}
  end
end
redis.call('ZCARD', KEYS[2])
redis.call('SET', KEYS[1], ARGV[3] .. ' ' .. string.format('%.0f', clock()) .. ' ' .. ARGV[2], 'PXAT', ARGV[4])
redis.call('ZADD', KEYS[2], ARGV[3], 'w' .. ARGV[5])
return {ARGV[2], 0}
