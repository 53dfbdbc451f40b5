-- Adds a tag to the pointer of a sid on a Cluster, unless the mark of the sid bars the login.
-- KEYS: 1 mark of the sid, 2 pointer
-- ARGV: 1 began, empty for a session that exists already, 2 tag as a number, 3 until when Redis keeps the pointer,
--       4 key prefix of the bucket, 5 how long the trace is kept
if ARGV[1] ~= '' then
  local at = redis.call('GET', KEYS[1])
  if at and tonumber(at) >= tonumber(ARGV[1]) then return 'ended' end
end
point(KEYS, 2, ARGV[2], ARGV[3])
leave_trace(ARGV[4], ARGV[5])
return 'pointed'
