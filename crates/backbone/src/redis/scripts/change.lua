-- Changes records of one node and decides the edges. ARGV[6..7]: age in ms and entries that the log keeps; ARGV[8] entries that a
-- part of the outbox keeps; ARGV[9] the number of the call, which rises; ARGV[10] that of the last one before whose edges the node
-- still keeps (0 none): a server that never had those changes nothing (`LOSTEDGES`); then for each change eight: topic, slot,
-- subscriptions, user, presence ("" none is meant, "-" gone, else "SINCE INFO"), the most users ("-": any number), what is asked for (1
-- the roster, 2 the cached event, 4 which publications the log has), bits.
-- Answers the epoch, the log's head, the changes, and how many messages were said in all. For each change: what it did (1
-- occupied, 2 vacated, 4 added, 8 removed, 16 refused), the total, the roster and the cached event where asked for, and how
-- many messages had been said when it was made. All states are those after the last change. Then the number of the call, what it
-- left in the outbox, and, where asked for, of each live node its name and the counters of its last publication in the log, one for
-- each lane.
local had = tonumber(call('HGET', P .. 'calls', node) or '0') or 0
-- With the number of this call it would seem to have had those edges, and nobody would leave them again.
if had < tonumber(ARGV[10]) then return redis.error_reply('LOSTEDGES ' .. had) end
local others = {}
for _, name in ipairs(live) do
  if name ~= node then others[#others + 1] = name end
end
-- Whoever changes something counts itself, even where damage took its name away.
others[#others + 1] = node
live = others
local totals, moved, order = {}, {}, {}

-- Whether another live node has the user.
local function is_elsewhere(slot, topic, user, elsewhere)
  for _, name in ipairs(elsewhere) do
    if call('HEXISTS', members_key(slot, name, topic), user) == 1 then return true end
  end
  return false
end

local function change(topic, slot, count, user, presence, users_max, bits)
  local key = P .. 'rec:' .. slot .. ':' .. node
  local mine = record(slot, node, topic)
  local total, elsewhere = 0, {}
  for _, name in ipairs(others) do
    if name ~= node then
      local theirs = record(slot, name, topic)
      if theirs > 0 then
        total = total + theirs
        elsewhere[#elsewhere + 1] = name
      end
    end
  end
  local before, did = total + mine, 0
  total = total + count
  local members = members_key(slot, node, topic)
  local had, has = false, presence ~= '' and presence ~= '-'
  local found = false
  if presence ~= '' then
    had = mine > 0 and call('HEXISTS', members, user) == 1
    found = (had ~= has or not has) and is_elsewhere(slot, topic, user, elsewhere)
    if has and not had and not found and users_max and before >= users_max and users(slot, topic) >= users_max then
      return 16, before
    end
  end
  -- What lies there without a record is damage, or left over: it must not come to life with the record.
  if has and mine == 0 then call('DEL', members) end
  if count > 0 then put(key, topic, count .. ' ' .. bits) else call('HDEL', key, topic) end
  if before == 0 and total > 0 then
    did = did + 1
    occupied(topic, slot, bits)
  end
  if has then
    put(members, user, presence)
    if not had and not found then
      did = did + 4
      added(topic, slot, bits, user, presence)
    end
  elseif presence == '-' then
    call('HDEL', members, user)
    if had and not found then
      did = did + 8
      removed(topic, slot, bits, user)
    elseif not found then
      -- The record may have been damaged before: whoever was told of a coming must hear of the going. To others it says nothing.
      hook(bits, MR, slot, 'mr', topic, 'u', user)
    end
  end
  if mine == 0 and count > 0 and not has and wants(bits, MA) then
    -- The others here were not to be seen without the record, which is whole again now.
    for _, other in ipairs(call('HKEYS', members) or {}) do hook(bits, MA, slot, 'ma', topic, 'u', other) end
  end
  if count == 0 and mine > 0 then
    -- Members that were not taken back one by one go with the record.
    for _, left in ipairs(call('HKEYS', members) or {}) do
      if not is_elsewhere(slot, topic, left, elsewhere) then removed(topic, slot, bits, left) end
    end
    call('UNLINK', members)
  end
  if before > 0 and total == 0 then
    did = did + 2
    vacated(topic, slot, bits)
  elseif count == 0 and total == 0 then
    -- The same of the channel.
    hook_vacated(topic, slot, bits)
  end
  if before ~= total then
    if not moved[topic] then order[#order + 1] = topic end
    moved[topic] = { slot, bits }
  end
  totals[topic] = total
  return did, total
end

local answers = {}
for i = 11, #ARGV, 8 do
  local topic, slot, bits = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 7])
  local did, total = change(topic, slot, tonumber(ARGV[i + 2]), ARGV[i + 3], ARGV[i + 4], tonumber(ARGV[i + 5]), bits)
  -- Its edges are the last that were said until now.
  answers[#answers + 1] = { did, total, false, false, false, #said / 2 }
end
for _, topic in ipairs(order) do
  -- Nobody is left to be told of nothing.
  if totals[topic] > 0 then counted(topic, moved[topic][1], moved[topic][2], totals[topic]) end
end
local wants_logged = false
for n, answer in ipairs(answers) do
  local i = n * 8 + 3
  local topic, slot, asked = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 6])
  wants_logged = wants_logged or asked >= 4
  if answer[1] ~= 16 then
    answer[2] = totals[topic]
    answer[3] = asked % 2 == 1 and roster(slot, topic) or false
    if asked % 4 >= 2 then
      local kept = call('GET', P .. 'cache:' .. topic)
      if kept then
        answer[4] = kept
        answer[5] = call('PTTL', P .. 'cache:' .. topic)
      else
        answer[4] = false
        hook(tonumber(ARGV[i + 7]), CM, slot, 'cm', topic)
      end
    end
  end
end
local left = tell(tonumber(ARGV[6]), ARGV[7], tonumber(ARGV[8]))
if #left > 0 then put(P .. 'calls', node, ARGV[9]) end
local logged = {}
if wants_logged then
  for _, name in ipairs(live) do
    local lanes = call('HMGET', P .. 'seq', name .. '.0.last', name .. '.1.last') or {}
    for _, word in ipairs({ name, lanes[1] or '0', lanes[2] or '0' }) do logged[#logged + 1] = word end
  end
end
return { epoch, head_id(), answers, #said / 2, tonumber(ARGV[9]), left, logged }
