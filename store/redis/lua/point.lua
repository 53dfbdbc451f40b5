-- Leaves the pointer from a sid to the tag of one who has it, unless the sid's own mark bars the login.
-- KEYS: 1 mark of the sid, 2 pointer
-- ARGV: 1 began, empty for a session that is there already, 2 tag as a number, 3 until when Redis keeps the pointer,
--       4 start of the keys of the bucket, 5 how long a trace is kept if replicas are waited for
if ARGV[1] ~= '' then
  local at = redis.call('GET', KEYS[1])
  if at and tonumber(at) >= tonumber(ARGV[1]) then return 'ended' end
end
redis.call('SADD', KEYS[2], ARGV[2])
leave_trace(ARGV[4], ARGV[5])
keep(KEYS[2], tonumber(ARGV[3]))
return 'pointed'
