-- Compares what a part of the outbox announced as come with the records, and leaves a going of what no live node has: its own was
-- lost, or damage hid that it went. Whoever comes, or is put right, after that stands behind it in the outbox. Of what is about to be
-- told to be gone and is on record it leaves a coming: that one was lost, or was none.
-- ARGV[4..7]: part, node, fence, entries that the part keeps; ARGV[8] the sight in which this is done (see `sight.lua`); then for each
-- subject five: 1 if its going lies in the outbox and is not told yet, what is left of it (its coming then, its going otherwise), topic,
-- slot, user ("" none).
-- Answers the epoch, how many were looked at (-1: the sight is another now), and how many goings, and how many comings, were left. Looks
-- at no more than takes about a millisecond, and at none while the outbox has no room for what is said again.
if sight() ~= ARGV[8] then return { epoch, -1, 0, 0 } end
local outbox, max, budget = P .. 'outbox:' .. part, tonumber(ARGV[7]), 500
local function is_there(topic, slot, user)
  for _, name in ipairs(live) do
    if record(slot, name, topic) > 0 then
      if user == '' or call('HEXISTS', members_key(slot, name, topic), user) == 1 then return true end
    end
  end
  return false
end
local at, looked, gone, back = 9, 0, 0, 0
while ARGV[at] and budget > 0 and (call('XLEN', outbox) or 0) < max / 2 do
  local is_going, what, topic, slot, user = ARGV[at] == '1', ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4]
  if is_there(topic, slot, user) == is_going and not is_others(slot) then
    local fields = { 'w', what, 't', topic }
    if user ~= '' then fields = { 'w', what, 't', topic, 'u', user } end
    leave(outbox, max, true, unpack(fields))
    if is_going then back = back + 1 else gone = gone + 1 end
  end
  at, looked, budget = at + 5, looked + 1, budget - 1 - #live
end
return { epoch, looked, gone, back }
