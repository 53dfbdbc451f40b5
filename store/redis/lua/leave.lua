-- Leaves notices in one bucket, all or none.
-- KEYS: 1 lanes    ARGV: 1 start of the keys of the bucket, 2 bells, then for each: lane, id, due, template, key, names, payload
local start, bells = ARGV[1], ARGV[2]
for i = 3, #ARGV, 7 do check_lane(start, bells, ARGV[i]) end
for i = 3, #ARGV, 7 do
  leave(start, ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4], ARGV[i + 5], ARGV[i + 6])
  if bells ~= '' then ring(bells .. ARGV[i], string.sub(ARGV[i + 1], 1, 2), ARGV[i + 2]) end
end
return 'left'
