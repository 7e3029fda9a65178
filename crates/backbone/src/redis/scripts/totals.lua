-- How things stand on topics: ARGV[4..] topic, slot, topic, slot ... Answers the epoch, how settled that is (as `roster.lua` does), then
-- subscriptions and users of each.
local slots = group[5] or '0'
local answer = { epoch, slots == string.match(ARGV[3], ' (%d+)$') and settled(nil) or 1 }
for i = 4, #ARGV, 2 do
  local topic, slot = ARGV[i], ARGV[i + 1]
  local total = 0
  if slots ~= '0' and is_others(slot) then answer[2] = 1 end
  for _, node in ipairs(live) do total = total + record(slot, node, topic) end
  answer[#answer + 1] = total
  answer[#answer + 1] = string.find(topic, ':presence-', 1, true) and (users(slot, topic)) or 0
end
return answer
