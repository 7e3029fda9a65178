-- Compares what a part of the outbox announced as come with the records, and leaves a going of what no live node has: its own was
-- lost, or damage hid that it went. Whoever comes, or is put right, after that stands behind it in the outbox.
-- ARGV[4..7]: part, node, fence, entries that the part keeps; ARGV[8] the sight in which this is done (see `sight.lua`); then for each
-- subject four: what its going is called, topic, slot, user ("" none).
-- Answers the epoch, how many were looked at (-1: the sight is another now), and how many goings were left. Looks at no more than takes
-- about a millisecond, and at none while the outbox has no room for what is said again.
if sight() ~= ARGV[8] then return { epoch, -1, 0 } end
local outbox, max, budget = P .. 'outbox:' .. part, tonumber(ARGV[7]), 500
local function is_there(topic, slot, user)
  for _, name in ipairs(live) do
    if record(slot, name, topic) > 0 then
      if user == '' or call('HEXISTS', members_key(slot, name, topic), user) == 1 then return true end
    end
  end
  -- Of a slot that another group has, it knows.
  return string.sub(call('HGET', P .. 'slots', slot) or '', 1, 3) == 'to:'
end
local at, looked, left = 9, 0, 0
while ARGV[at] and budget > 0 and (call('XLEN', outbox) or 0) < max / 2 do
  local what, topic, slot, user = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  if not is_there(topic, slot, user) then
    local fields = { 'w', what, 't', topic }
    if user ~= '' then fields = { 'w', what, 't', topic, 'u', user } end
    leave(outbox, max, true, unpack(fields))
    left = left + 1
  end
  at, looked, budget = at + 4, looked + 1, budget - 1 - #live
end
return { epoch, looked, left }
