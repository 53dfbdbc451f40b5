-- Lists the notices that are due, after it has put those back whose lease has run out.
-- KEYS: due and leased of each bucket    ARGV: 1 now, 2 at most so many of each
local answer = {}
for i = 1, #KEYS, 2 do
  local start = string.sub(KEYS[i], 1, -2)
  local back = redis.call('ZRANGEBYSCORE', KEYS[i + 1], '-inf', ARGV[1], 'LIMIT', 0, 1000)
  for j = 1, #back do
    local due = redis.call('HGET', start .. 'n' .. back[j], 'd')
    if due then redis.call('ZADD', KEYS[i], due, back[j]) end
    redis.call('ZREM', KEYS[i + 1], back[j])
  end
  answer[#answer + 1] = redis.call('ZRANGEBYSCORE', KEYS[i], '-inf', ARGV[1], 'WITHSCORES', 'LIMIT', 0, ARGV[2])
end
return answer
