-- Looks through the records of a part's slots for what is there and was never announced, though an app's server wants to hear of it: its
-- coming was lost, or a store that went back had it on record already when it came. Leaves a coming, which says nothing to anybody where
-- one lies in the outbox already.
-- ARGV[4..7]: part, node, fence, entries that the part keeps; ARGV[8] the sight in which this is done (see `sight.lua`); ARGV[9..11]
-- where to go on: slot ("" begins), how many of its live nodes were looked at, place in that one's records.
-- Answers the epoch, 1 if it is done (-1: the sight is another now), how many comings were left, and where to go on. Looks at no more than
-- takes about a millisecond, beside the members of one channel, and at nothing while the outbox has no room for what is said again.
if sight() ~= ARGV[8] then return { epoch, -1, 0 } end
local outbox, announced, max = P .. 'outbox:' .. part, P .. 'announced:' .. part, tonumber(ARGV[7])
local slot, nodes, cursor = tonumber(ARGV[9]) or tonumber(part), tonumber(ARGV[10]) or 0, ARGV[11]
local budget, left = 500, 0
local function came(name, ...)
  budget = budget - 1
  if call('HEXISTS', announced, name) == 1 then return end
  leave(outbox, max, true, ...)
  left = left + 1
end
local function look(topic, bits)
  if is_user(topic) then
    if wants(bits, UO) then came('u' .. topic, 'w', 'uo', 't', topic) end
    return
  end
  if wants(bits, CO) then came('c' .. topic, 'w', 'co', 't', topic) end
  if not wants(bits, MA) then return end
  for _, user in ipairs(call('HKEYS', members_key(slot, live[nodes + 1], topic)) or {}) do
    came('m' .. topic .. '\n' .. user, 'w', 'ma', 't', topic, 'u', user)
  end
end
table.sort(live)
while slot < 1024 and budget > 0 and (call('XLEN', outbox) or 0) < max / 2 do
  -- Of a slot that another group has, it knows.
  local is_others = string.sub(call('HGET', P .. 'slots', slot) or '', 1, 3) == 'to:'
  if is_others or nodes >= #live then
    slot, nodes, cursor = slot + 16, 0, '0'
  else
    local page = call('HSCAN', P .. 'rec:' .. slot .. ':' .. live[nodes + 1], cursor, 'COUNT', 50) or { '0', {} }
    for i = 1, #page[2], 2 do
      local count, bits = string.match(page[2][i + 1], '^(%d+) (%d+)$')
      if (tonumber(count) or 0) > 0 then look(page[2][i], tonumber(bits)) end
    end
    budget = budget - 1 - #page[2] / 2
    cursor = page[1]
    if cursor == '0' then nodes = nodes + 1 end
  end
end
local is_done = slot >= 1024
if is_done then redis.call('HSET', P .. 'claim:' .. part, 'compared', ARGV[8]) end
return { epoch, is_done and 1 or 0, left, slot, nodes, cursor }
