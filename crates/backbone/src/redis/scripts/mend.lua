-- Makes records what their node says they are. Subscribers hear no edge of it. An app's server may have been told one that only the
-- damage made, or not one that the damage hid: it is told again how each subject stands, which says nothing to whoever knows it.
-- ARGV[6] is a text that other nodes are told of each topic mended, before the topic ("" none), ARGV[7] entries that a part of the
-- outbox keeps, then for each topic: topic ("" none: the slot's key alone is looked at), slot, record
-- ("" is deleted), how many users are deleted and how many written, the users, the users with theirs.
local function sound(key)
  local kind = redis.call('TYPE', key).ok
  if kind ~= 'hash' and kind ~= 'none' then call('UNLINK', key) end
end
-- Whether another live node has subscriptions on the topic, or the user where one is meant.
local function is_elsewhere(slot, topic, user)
  for _, name in ipairs(live) do
    if name ~= node and record(slot, name, topic) > 0 then
      if not user or call('HEXISTS', members_key(slot, name, topic), user) == 1 then return true end
    end
  end
  return false
end
local function gone_from(slot, topic, bits, user)
  if wants(bits, MR) and not is_elsewhere(slot, topic, user) then hook(bits, MR, slot, 'mr', topic, 'u', user) end
end
-- A list that was large keeps the room of a large one: where at least half of it was nobody, it is made anew. What is left is then no
-- more than one call takes away, which `unpack` can carry.
local function rebuild(key, gone)
  local left = call('HLEN', key) or 0
  if left == 0 or left > gone then return end
  local fields = redis.call('HGETALL', key)
  call('UNLINK', key)
  redis.call('HSET', key, unpack(fields))
end
local i, topics = 8, 0
while i < #ARGV do
  local topic, slot, text = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local gone, here = tonumber(ARGV[i + 3]), tonumber(ARGV[i + 4])
  local records, members = P .. 'rec:' .. slot .. ':' .. node, members_key(slot, node, topic)
  i = i + 5
  if topic == '' then
    sound(records)
  else
    local count, bits = record(slot, node, topic)
    if text == '' then
      if count > 0 and bits > 0 then
        for _, user in ipairs(call('HKEYS', members) or {}) do gone_from(slot, topic, bits, user) end
        if not is_elsewhere(slot, topic) then hook_vacated(topic, slot, bits) end
      end
      call('UNLINK', members)
    else
      sound(members)
      bits = tonumber(string.match(text, ' (%d+)$')) or 0
      if count == 0 then hook_occupied(topic, slot, bits) end
    end
    for _ = 1, gone do
      call('HDEL', members, ARGV[i])
      gone_from(slot, topic, bits, ARGV[i])
      i = i + 1
    end
    for _ = 1, here do
      local is_new = call('HEXISTS', members, ARGV[i]) == 0
      put(members, ARGV[i], ARGV[i + 1])
      if is_new and count > 0 then hook(bits, MA, slot, 'ma', topic, 'u', ARGV[i]) end
      i = i + 2
    end
    if gone > 0 then rebuild(members, gone) end
    if text == '' then call('HDEL', records, topic) else put(records, topic, text) end
    if text ~= '' and count == 0 and wants(bits, MA) then
      -- Nobody of the list was to be seen without the record.
      for _, user in ipairs(call('HKEYS', members) or {}) do hook(bits, MA, slot, 'ma', topic, 'u', user) end
    end
    if ARGV[6] ~= '' then publish(P .. 'pulse', ARGV[6] .. topic) end
    topics = topics + 1
  end
end
-- As what only informs: it must not drive out an edge that nobody knows yet.
for _, entry in ipairs(hooked) do leave(P .. 'outbox:' .. entry[1], tonumber(ARGV[7]), true, unpack(entry, 3)) end
return { epoch, topics }
