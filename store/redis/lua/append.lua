-- Adds entries to the journal and removes the oldest beyond its size.
-- KEYS: 1 journal, 2 the highest position that was used
-- ARGV: 1 now, 2 size, then entries
for i = 3, #ARGV do
  local position = string.format('%.0f', redis.call('INCR', KEYS[2]))
  redis.call('XADD', KEYS[1], position .. '-0', 't', ARGV[1], 'e', ARGV[i])
end
redis.call('XTRIM', KEYS[1], 'MAXLEN', ARGV[2])
return 'added'
