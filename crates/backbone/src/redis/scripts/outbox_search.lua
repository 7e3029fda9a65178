-- Looks through the records of a part's slots for what is there and was never announced, though an app's server wants to hear of it: its
-- coming was lost, or a store that went back had it on record already when it came. The first search notes what it finds. The second,
-- once damage would have been found and mended, leaves a coming of what was noted and is found again: it says nothing to anybody where one
-- lies in the outbox already. What came in between is no concern of it.
-- ARGV[4..7]: part, node, fence, entries that the part keeps; ARGV[8] the sight in which this is done (see `sight.lua`); ARGV[9] is 1 in
-- the second search; ARGV[10..14] where to go on: slot ("" begins), live node, place in its records, how many behind that are done, place
-- in the next one's members.
-- Answers the epoch, 1 if it is over (0: there is more; 2: likewise, but no room for it; -1: the sight is another now), how many were noted, or comings left, and where to
-- go on. Ends after about a millisecond, or where the outbox has no room for what is said again.
if sight() ~= ARGV[8] then return { epoch, -1, 0 } end
-- Noted at most: what is beyond is noted in another sight.
local BUDGET, PAGE, NOTED_MAX, NOTED_KEPT_MS = 500, 50, 16384, 60000
local outbox, announced, max = P .. 'outbox:' .. part, P .. 'announced:' .. part, tonumber(ARGV[7])
local is_second, begins = ARGV[9] == '1', ARGV[10] == ''
local slot, name, cursor = tonumber(ARGV[10]) or tonumber(part), ARGV[11], ARGV[12]
local done, members = tonumber(ARGV[13]) or 0, ARGV[14]
local budget, count, has_room = BUDGET, 0, (call('XLEN', outbox) or 0) < max / 2
local noted = P .. 'noted:' .. part
if begins and not is_second then redis.call('UNLINK', noted) end
local function may_go_on() return budget > 0 and has_room end
local function came(known_as, ...)
  budget = budget - 1
  if not has_room or call('HEXISTS', announced, known_as) == 1 then return end
  if not is_second then
    if (call('HLEN', noted) or 0) >= NOTED_MAX then return end
    redis.call('HSET', noted, known_as, '1')
    redis.call('PEXPIRE', noted, NOTED_KEPT_MS)
  elseif call('HEXISTS', noted, known_as) == 0 then
    return
  elseif not leave(outbox, max, true, ...) then
    has_room = false
    return
  end
  count = count + 1
end
-- Looks at a topic; false where members remain for the next call.
local function look(topic, bits)
  if is_user(topic) then
    if wants(bits, UO) then came('u' .. topic, 'w', 'uo', 't', topic) end
    return has_room
  end
  if wants(bits, CO) then came('c' .. topic, 'w', 'co', 't', topic) end
  if not wants(bits, MA) then return has_room end
  repeat
    local page = call('HSCAN', members_key(slot, name, topic), members, 'COUNT', PAGE) or { '0', {} }
    for i = 1, #page[2], 2 do came('m' .. topic .. '\n' .. page[2][i], 'w', 'ma', 't', topic, 'u', page[2][i]) end
    if not has_room then return false end
    members = page[1]
  until members == '0' or budget <= 0
  return members == '0'
end
table.sort(live)
-- The node itself, or where it has gone whoever is next.
local function node_from(first)
  for _, other in ipairs(live) do
    if other >= first then return other end
  end
end
local function go_to(next_slot, next_name) slot, name, cursor, done, members = next_slot, next_name, '0', 0, '0' end
if begins then go_to(slot, '') end
while slot < 1024 and may_go_on() do
  local node_is = not is_others(slot) and node_from(name)
  if not node_is then
    go_to(slot + 16, '')
  else
    if node_is ~= name then go_to(slot, node_is) end
    local page = call('HSCAN', P .. 'rec:' .. slot .. ':' .. name, cursor, 'COUNT', PAGE) or { '0', {} }
    local topics = #page[2] / 2
    while done < topics and may_go_on() do
      local subscriptions, bits = string.match(page[2][2 * done + 2], '^(%d+) (%d+)$')
      if (tonumber(subscriptions) or 0) == 0 or look(page[2][2 * done + 1], tonumber(bits)) then
        done, members = done + 1, '0'
      end
      budget = budget - 1
    end
    if done >= topics then
      cursor, done, members, budget = page[1], 0, '0', budget - 1
      -- No name lies between one and the same with a zero behind it.
      if cursor == '0' then go_to(slot, name .. '\0') end
    end
  end
end
local is_over = slot >= 1024
-- With nothing noted there is nothing to look for again.
if is_over and (is_second or call('EXISTS', noted) == 0) then
  redis.call('HSET', P .. 'claim:' .. part, 'compared', ARGV[8])
  redis.call('UNLINK', noted)
end
return { epoch, is_over and 1 or has_room and 0 or 2, count, slot, name, cursor, done, members }
