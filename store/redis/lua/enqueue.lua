-- Leaves notices in one bucket, all or none.
-- KEYS: 1 queues    ARGV: 1 start of the keys of the bucket, 2 wakeups, then for each: queue, id, due, template, key, names, payload
local start, wakeups = ARGV[1], ARGV[2]
for i = 3, #ARGV, 7 do check_queue(start, wakeups, ARGV[i]) end
for i = 3, #ARGV, 7 do
  enqueue(start, ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4], ARGV[i + 5], ARGV[i + 6])
  if wakeups ~= '' then wake(wakeups .. ARGV[i], string.sub(ARGV[i + 1], 1, 2), ARGV[i + 2]) end
end
return 'left'
