-- Records, as everybody reads them: those of nodes that are live.
local live = call('HKEYS', P .. 'nodes') or {}
-- What a node says of a topic: its subscriptions, and which edges are wanted and counts told (see `Bits`).
local function record(slot, node, topic)
  local text = call('HGET', P .. 'rec:' .. slot .. ':' .. node, topic)
  if not text then return 0, 0 end
  local count, bits = string.match(text, '^(%d+) (%d+)$')
  return tonumber(count) or 0, tonumber(bits) or 0
end
local function members_key(slot, node, topic)
  return P .. 'mem:' .. slot .. ':' .. node .. ':' .. topic
end
-- Users and `SINCE INFO` of all live nodes, one node after the other; whoever asked merges.
local function roster(slot, topic)
  local all = {}
  for _, node in ipairs(live) do
    if record(slot, node, topic) > 0 then
      local some = call('HGETALL', members_key(slot, node, topic)) or {}
      for i = 1, #some do all[#all + 1] = some[i] end
    end
  end
  return all
end
-- Distinct users of all live nodes, and what it took to count them, in units of about two microseconds.
local function users(slot, topic)
  local keys = {}
  for _, node in ipairs(live) do
    if record(slot, node, topic) > 0 then keys[#keys + 1] = members_key(slot, node, topic) end
  end
  if #keys == 0 then return 0, #live end
  if #keys == 1 then return call('HLEN', keys[1]) or 0, #live + 3 end
  local seen, count = {}, 0
  for _, key in ipairs(keys) do
    for _, user in ipairs(call('HKEYS', key) or {}) do
      if not seen[user] then
        seen[user] = true
        count = count + 1
      end
    end
  end
  return count, 2 * #live + count
end
