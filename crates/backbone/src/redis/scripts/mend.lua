-- Makes records what their node says they are, and makes no edge. ARGV[6] is a text that other nodes are told of each topic
-- mended, before the topic ("" none), then for each topic: topic ("" none: the slot's key alone is looked at), slot, record
-- ("" is deleted), how many users are deleted and how many written, the users, the users with theirs.
local function sound(key)
  local kind = redis.call('TYPE', key).ok
  if kind ~= 'hash' and kind ~= 'none' then call('UNLINK', key) end
end
local i, topics = 7, 0
while i < #ARGV do
  local topic, slot, text = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local gone, here = tonumber(ARGV[i + 3]), tonumber(ARGV[i + 4])
  local records, members = P .. 'rec:' .. slot .. ':' .. node, members_key(slot, node, topic)
  i = i + 5
  if topic == '' then
    sound(records)
  else
    if text == '' then call('UNLINK', members) else sound(members) end
    for _ = 1, gone do
      call('HDEL', members, ARGV[i])
      i = i + 1
    end
    for _ = 1, here do
      put(members, ARGV[i], ARGV[i + 1])
      i = i + 2
    end
    if text == '' then call('HDEL', records, topic) else put(records, topic, text) end
    if ARGV[6] ~= '' then publish(P .. 'pulse', ARGV[6] .. topic) end
    topics = topics + 1
  end
end
return { epoch, topics }
