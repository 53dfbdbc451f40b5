-- Forgets entries of the journal: those named, and the oldest ones that were added before a time.
-- KEYS: 1 journal, 2 the highest position that was used
-- ARGV: 1 before, 2 how many for their age at most, then the IDs of entries
local removed, old = 0, 0
for i = 3, #ARGV do removed = removed + redis.call('XDEL', KEYS[1], ARGV[i]) end
for _, e in ipairs(redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', ARGV[2])) do
  if tonumber(e[2][2]) >= tonumber(ARGV[1]) then break end
  old = old + redis.call('XDEL', KEYS[1], e[1])
end
return {removed + old, old}
