-- Makes records what their node says they are, and makes no edge. ARGV[6] is a text that other nodes are told of each topic
-- mended ("" none: the topic follows it), then for each topic: topic, slot, record ("" is deleted), whether the key of records
-- or of members is first deleted (1, 2), how many users are deleted and how many written, the users, the users with theirs.
local i, topics = 7, 0
while i < #ARGV do
  local topic, slot, text = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local clean, gone, here = tonumber(ARGV[i + 3]), tonumber(ARGV[i + 4]), tonumber(ARGV[i + 5])
  local records, members = P .. 'rec:' .. slot .. ':' .. node, members_key(slot, node, topic)
  i = i + 6
  if clean % 2 == 1 then call('UNLINK', records) end
  if clean >= 2 or text == '' then call('UNLINK', members) end
  for _ = 1, gone do
    call('HDEL', members, ARGV[i])
    i = i + 1
  end
  for _ = 1, here do
    put(members, ARGV[i], ARGV[i + 1])
    i = i + 2
  end
  if topic ~= '' then
    if text == '' then call('HDEL', records, topic) else put(records, topic, text) end
    if ARGV[6] ~= '' then call('PUBLISH', P .. 'pulse', ARGV[6] .. topic) end
  end
  topics = topics + 1
end
return { epoch, topics }
