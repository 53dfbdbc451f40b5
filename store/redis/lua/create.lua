-- Keeps a session in its bucket, unless a mark there bars it.
-- KEYS: session, queue, index, tags, then the marks that may name it
-- ARGV: 1 began, 2 the session, 3 runs out, 4 hint, 5 tag, 6 rest of the key, 7 until when Redis keeps the session and
--       8 the index, in its milliseconds
for i = 5, #KEYS do
  local at = redis.call('GET', KEYS[i])
  if at and tonumber(at) >= tonumber(ARGV[1]) then return 'ended' end
end
if redis.call('EXISTS', KEYS[1]) == 1 then return 'exists' end
for i = 2, 4 do redis.call('ZCARD', KEYS[i]) end -- what would fail is to fail before anything is written
redis.call('SET', KEYS[1], ARGV[2], 'PXAT', ARGV[7])
redis.call('ZADD', KEYS[2], ARGV[3], ARGV[4] .. ARGV[5] .. ARGV[6])
redis.call('ZADD', KEYS[3], 0, ARGV[4] .. ARGV[6])
redis.call('ZADD', KEYS[4], 0, ARGV[5])
keep(KEYS[3], tonumber(ARGV[8]))
return 'created'
