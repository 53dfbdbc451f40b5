-- Adds notices to one bucket, all of them or none.
-- KEYS: 1 queues
-- ARGV: 1 key prefix of the bucket, 2 key prefix of wake-ups,
--       then for each notice: queue, id, due, template, key, names, payload
local prefix, wakeups = ARGV[1], ARGV[2]
for i = 3, #ARGV, 7 do check_queue(prefix, wakeups, ARGV[i]) end
for i = 3, #ARGV, 7 do
  enqueue(prefix, ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4], ARGV[i + 5], ARGV[i + 6])
  if wakeups ~= '' then wake(wakeups .. ARGV[i], string.sub(ARGV[i + 1], 1, 2), ARGV[i + 2]) end
end
return 'enqueued'
