-- Leases those of the named notices of a queue that are still due.
-- KEYS: 1 due, 2 leased
-- ARGV: 1 now, 2 until, 3 lease, 4 key prefix of the bucket, 5 queue, then ids
-- Returns when the next notice of the queue is due, and then the notices.
local prefix, queue = ARGV[4], ARGV[5]
check_queue(prefix, '', queue)
local answer = {''}
for i = 6, #ARGV do
  local at = redis.call('ZSCORE', KEYS[1], ARGV[i])
  if at and tonumber(at) <= tonumber(ARGV[1]) then
    local key = prefix .. 'n' .. ARGV[i]
    local n = redis.call('HMGET', key, 't', 'k', 's', 'p', 'd', 'r', 'a')
    redis.call('ZREM', KEYS[1], ARGV[i])
    if n[1] then
      redis.call('ZADD', KEYS[2], ARGV[2], ARGV[i])
      redis.call('HSET', key, 'l', ARGV[3], 'a', n[7] + 1)
      answer[#answer + 1] = {ARGV[i], n[1], n[2], n[3], n[4], n[5], n[6] or '', tostring(n[7] + 1), ''}
    end
  end
end
answer[1] = upcoming(prefix, queue)
return answer
