-- Lists the notices of some queues of a bucket.
-- KEYS: 1 queues
-- ARGV: 1 key prefix of the bucket, 2 pending, dead or empty for both, then the queues
local answer = {}
for i = 3, #ARGV do
  for letter, state in pairs({o = 'pending', g = 'dead'}) do
    if ARGV[2] == '' or ARGV[2] == state then
      for _, id in ipairs(redis.call('ZRANGE', ARGV[1] .. letter .. ARGV[i], 0, -1)) do answer[#answer + 1] = id end
    end
  end
end
return answer
