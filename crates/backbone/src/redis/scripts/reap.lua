-- Takes a node's records away, with their edges, a bounded number per call. ARGV[4..5]: age in ms and entries that the log
-- keeps; ARGV[6] the node, ARGV[7] its lease as it was judged ("" where the node itself leaves), ARGV[8] the slot to go on
-- from ("-1" begins), ARGV[9] how many records and members at most, ARGV[10] entries that a part of the
-- outbox keeps.
-- Answers the epoch and the slot to go on from: 1024 when done, -2 when there is nothing to be done any more.
local gone, slot, budget = ARGV[6], tonumber(ARGV[8]), tonumber(ARGV[9])
local fence = call('HGET', P .. 'fence', gone) or ''
local now = tonumber(redis.call('TIME')[1])
if slot == -1 then
  -- Whoever is written off here finds it in the way of its next change, and joins anew. One that renewed meanwhile lives.
  local lease = call('HGET', P .. 'nodes', gone)
  if ARGV[7] ~= '' and lease ~= ARGV[7] then return { epoch, -2 } end
  if tonumber(fence) or fence == '' then call('HSET', P .. 'fence', gone, 'reaped ' .. now) end
  slot = 0
elseif string.sub(fence, 1, 6) ~= 'reaped' then
  return { epoch, -2 }
end
local rest = {}
for _, name in ipairs(live) do
  if name ~= gone then rest[#rest + 1] = name end
end

local function is_elsewhere(topic, user, elsewhere)
  for _, name in ipairs(elsewhere) do
    if call('HEXISTS', members_key(slot, name, topic), user) == 1 then return true end
  end
  return false
end

-- Takes one topic's record away; false where members remain for the next call.
local function take(key, topic)
  local _, bits = record(slot, gone, topic)
  local total, elsewhere = 0, {}
  for _, name in ipairs(rest) do
    local theirs = record(slot, name, topic)
    if theirs > 0 then
      total = total + theirs
      elsewhere[#elsewhere + 1] = name
    end
  end
  local members = members_key(slot, gone, topic)
  for _, user in ipairs(call('HKEYS', members) or {}) do
    if budget <= 0 then return false end
    budget = budget - 1
    call('HDEL', members, user)
    if not is_elsewhere(topic, user, elsewhere) then removed(topic, slot, bits, user) end
  end
  call('HDEL', key, topic)
  call('UNLINK', members)
  budget = budget - 1
  if total == 0 then vacated(topic, slot, bits) else counted(topic, slot, bits, total) end
  return true
end

local empty = 0
while slot < 1024 and budget > 0 and empty < 256 do
  local key = P .. 'rec:' .. slot .. ':' .. gone
  local topics, failed = call('HKEYS', key)
  if failed then call('UNLINK', key) end
  local is_done = true
  for _, topic in ipairs(topics or {}) do
    if budget <= 0 or not take(key, topic) then
      is_done = false
      break
    end
  end
  if is_done then slot = slot + 1 end
  if not topics or #topics == 0 then empty = empty + 1 end
end
if slot >= 1024 then
  for _, hash in ipairs({ 'nodes', 'settled', 'calls' }) do call('HDEL', P .. hash, gone) end
  -- Of what damage had taken from a node that died before it noticed no edge was made.
  if ARGV[7] ~= '' then call('HINCRBY', KEYS[1], 'doubts', 1) end
  -- The marks of those who never came back are kept for an hour, and the numbers of their lanes as long: nobody fills a gap then.
  local marks = call('HGETALL', P .. 'fence') or {}
  for i = 1, #marks, 2 do
    local since = string.match(marks[i + 1], '^reaped (%d+)$')
    if since and tonumber(since) < now - 3600 then
      call('HDEL', P .. 'fence', marks[i])
      local lanes = { marks[i] .. '.0', marks[i] .. '.1' }
      call('HDEL', P .. 'seq', lanes[1], lanes[2], lanes[1] .. '.last', lanes[2] .. '.last')
    end
  end
end
tell(tonumber(ARGV[4]), ARGV[5], tonumber(ARGV[10]))
return { epoch, slot }
