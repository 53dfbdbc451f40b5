-- Ends the sessions of one tag that an ending names: all of them or none. It reads everything that it may refuse or
-- that may fail before it writes: while a slot is moving, reading a key that has moved is an error, and then nothing
-- has been written. did says what sid.lua, which may stand before this, has done: checked the jti, read the time for
-- marks, written something.
-- KEYS: 1 expiry, 2 index, 3 tags, 4 last message, 5 queues; if there is a jti: 6 jti, 7 expiry of its bucket
-- ARGV: 1 now, 2 key prefix of the bucket, 3 tag, 4 shape (key, sid, subject, both), 5 scope (issuer and client),
--       6 subject, 7 sid, 8 rest of the key, 9 hints, 10 marks, 11 when marks expire, 12 until when Redis keeps marks,
--       13 name of the jti, 14 when it expires, 15 until when Redis keeps it, 16 command to publish, 17 channel,
--       18 head of the message, 19 prefix of the ids of notices, 20 how long the trace is kept,
--       21 key prefix of wake-ups, 22 how many sessions to remove at most,
--       23 how many of the newest to spare (0: an ordinary ending),
--       then for each requested notice: which sessions (w: one for the whole subject, t: each session,
--       r: each with an online refresh token, o: each with any refresh token), template, names, queue
-- Returns a word ('more' if there may be more sessions to end: then the jti is not recorded yet), the queues to which
-- notices were added, and the ended sessions, each after which kind of refresh token it held.
local now, prefix, tag, shape = tonumber(ARGV[1]), ARGV[2], ARGV[3], ARGV[4]
local has_jti = ARGV[13] ~= ''
local limit, spare = tonumber(ARGV[22]), tonumber(ARGV[23])
local cluster = ARGV[16] == 'SPUBLISH' -- slots move
if spare > 0 and redis.call('ZCARD', KEYS[2]) <= spare then return {'done', ''} end

if has_jti and not did.jti then
  local till = redis.call('GET', KEYS[6])
  if till and now < tonumber(till) then return {'replayed'} end
  if cluster then redis.call('ZCARD', KEYS[7]) end
end

-- is_named reports whether the ending names a session. The names are compared in full; hashes are only for finding.
-- ARGV[5] to ARGV[7] are encoded like the names, each with its length.
local scope, subject, sid = ARGV[5], ARGV[6], ARGV[7]
local function has_sid(v, its_sid)
  local has = its_sid == sid
  former(v, function(_, former_sid) has = has or former_sid == sid end)
  return has
end
local function is_named(v)
  local its_names = string.sub(v, 63, 62 + names_length(v))
  if string.sub(its_names, 1, #scope) ~= scope then return false end
  if shape == 'key' then return true end
  local n = (struct.unpack('>I4', its_names, #scope + 1))
  local its_subject = string.sub(its_names, #scope + 1, #scope + 4 + n)
  local its_sid = string.sub(its_names, #scope + 5 + n)
  if shape ~= 'subject' and has_sid(v, its_sid) then return true end
  return its_subject == subject and (shape == 'subject' or shape == 'both' and its_sid == '\0\0\0\0')
end

-- Sessions are read without their payloads. Those are read only where a notice needs them. If the ACL of the server
-- forbids GETRANGE, part reads the whole value; any other error occurs again there.
local function part(key, from, to)
  local v = redis.pcall('GETRANGE', key, from, to)
  if type(v) ~= 'table' then return v end
  v = redis.call('GET', key) or ''
  return string.sub(v, from + 1, to < 0 and to or to + 1)
end
local function head(key)
  local v = part(key, 0, 1023)
  if v == '' then return nil end
  local size = 66 + names_length(v) -- as far as payload_at looks
  if #v < size then v = part(key, 0, size - 1) end
  size = payload_at(v) - 1
  return #v < size and part(key, 0, size - 1) or v
end

local found, expired, stale, seen = {}, {}, {}, {}
local former_index, no_former = prefix .. 'k' .. tag, false
local function full() return spare == 0 and #found + #expired >= limit end
local function consider(rest, listed)
  if seen[rest] then return end
  seen[rest] = true
  local v = head(prefix .. 's' .. tag .. rest)
  if not v then
    if listed then stale[#stale + 1] = {listed, rest} end
  elseif is_named(v) then
    local into = lives(v, now) and found or expired
    into[#into + 1] = {hint(v), rest, v}
  end
end
-- consider_all reads pages of an index until there are enough sessions.
local function consider_all(page)
  local at = 0
  while not full() do
    local list = page(at)
    for i = 1, #list do
      if full() then break end
      consider(string.sub(list[i], 9), string.sub(list[i], 1, 8))
    end
    if #list < limit then break end
    at = at + #list
  end
end
if shape == 'key' then
  consider(ARGV[8])
elseif spare > 0 then
  local list = redis.call('ZRANGE', KEYS[2], 0, spare + limit - 1)
  for i = 1, #list do consider(string.sub(list[i], 9), string.sub(list[i], 1, 8)) end
  -- Of the sessions that were read the newest stay. Those that were not read stay too, so none of the newest of all is
  -- removed.
  table.sort(found, function(a, b) return field(a[3], 43) < field(b[3], 43) end)
  for i = #found, math.max(1, #found - spare + 1), -1 do found[i] = nil end
elseif shape == 'subject' then
  consider_all(function(at) return redis.call('ZRANGE', KEYS[2], at, at + limit - 1) end)
else
  local indexes = {KEYS[2]}
  no_former = redis.call('ZCARD', former_index) == 0
  if not no_former then indexes[2] = former_index end
  for at = 1, #ARGV[9], 8 do
    local from = string.sub(ARGV[9], at, at + 7)
    for _, index in ipairs(indexes) do
      consider_all(function(at)
        return redis.call('ZRANGEBYLEX', index, '[' .. from, '(' .. from .. string.rep('\255', 33), 'LIMIT', at, limit)
      end)
    end
  end
end
local more = shape ~= 'key' and full()

local reads, marks, marked = {KEYS[4]}, {}, did.marked or mark_time(ARGV[1])
local named = ARGV[10]
if spare == 0 and (shape ~= 'key' or named == '') then
  for i = 1, #found do -- of access tokens (created in 1970), by their keys: see keyMarkOf
    if field(found[i][3], 43) < 31536000000000 then named = named .. string.sub(found[i][2], 1, 16) end
  end
end
for at = 1, #named, 16 do reads[#reads + 1] = prefix .. 'm' .. string.sub(named, at, at + 15) end
local values = redis.call('MGET', unpack(reads))
for i = 2, #reads do
  if not values[i] or tonumber(values[i]) < tonumber(marked) then
    marks[#marks + 1] = {string.sub(named, 16 * i - 31, 16 * i - 16), values[i]}
  end
end

local notices, queues = {}, {}
local function add_notice(queue, template, key, about, payload)
  local id = ARGV[19] .. '-' .. (#notices + 1)
  redis.call('EXISTS', prefix .. 'n' .. id)
  notices[#notices + 1] = {queue, id, template, key, about, payload}
  if queues[#queues] ~= queue then queues[#queues + 1] = queue end
end
for i = 24, #ARGV, 4 do
  local which, template, queue = ARGV[i], ARGV[i + 1], ARGV[i + 3]
  if which == 'w' then
    if not more then add_notice(queue, template, '', ARGV[i + 2], '') end
  else
    for j = 1, #found do
      local v = found[j][3]
      if which == 't' then
        add_notice(queue, template, tag .. found[j][2], names(v), '')
      elseif refresh(v) == 1 or refresh(v) == 2 and which == 'o' then
        add_notice(queue, template, tag .. found[j][2], names(v),
          part(prefix .. 's' .. tag .. found[j][2], payload_at(v) - 1, -1))
      end
    end
  end
end
for i = 1, #queues do check_queue(prefix, ARGV[21], queues[i]) end
local before = values[1] or string.rep('\0', 16)
if no_former then former_index = nil end
if cluster then
  for _, key in ipairs({KEYS[1], KEYS[3], prefix .. 'k' .. tag}) do redis.call('ZCARD', key) end
end

-- From here on nothing fails. When the memory of Redis is full, it refuses a script at its first command that needs
-- memory, but not after a command that wrote. ZREM needs none, so it comes first: sessions can be ended on a full
-- server.
if not did.wrote then redis.call('ZREM', KEYS[1], '') end
leave_trace(prefix, ARGV[20])
if has_jti and not more then
  redis.call('SET', KEYS[6], ARGV[14], 'PXAT', ARGV[15])
  redis.call('ZADD', KEYS[7], ARGV[14], 'j' .. ARGV[13])
end
for i = 1, #marks do
  leave_mark(KEYS[1], prefix .. 'm' .. marks[i][1], 'm' .. marks[i][1], marks[i][2], marked, ARGV[11], ARGV[12])
end
for i = 1, #stale do unlist(KEYS[1], KEYS[3], KEYS[2], former_index, tag, stale[i][1], stale[i][2]) end
local answer, ended = {more and 'more' or 'done', table.concat(queues)}, {}
for _, list in ipairs({expired, found}) do
  for i = 1, #list do
    redis.call('UNLINK', prefix .. 's' .. tag .. list[i][2])
    unlist(KEYS[1], KEYS[3], KEYS[2], former_index, tag, list[i][1], list[i][2], list[i][3])
  end
end
for i = 1, #found do
  ended[i] = tag .. found[i][2] .. names(found[i][3])
  answer[i + 2] = string.char(refresh(found[i][3])) .. ended[i]
end
for i = 1, #notices do
  local n = notices[i]
  enqueue(prefix, n[1], n[2], ARGV[1], n[3], n[4], n[5], n[6])
end
if ARGV[21] ~= '' then
  for i = 1, #queues do wake(ARGV[21] .. queues[i], string.sub(ARGV[19], 1, 2), ARGV[1]) end
end
if #ended > 0 then
  local head = ARGV[18]
  redis.call('SET', KEYS[4], string.sub(head, 1, 16))
  redis.call(ARGV[16], ARGV[17], before .. head .. table.concat(ended))
end
return answer
