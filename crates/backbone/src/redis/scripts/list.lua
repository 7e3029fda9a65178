-- Occupied topics that begin with ARGV[4], of the slots ARGV[5] up to ARGV[6]. Stops behind the slot in which ARGV[7] units
-- of work are used up. Answers the epoch, the slot to go on from, and topic, subscriptions, users ...
local prefix, slot, last, budget = ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local answer = { epoch, 0 }
while slot < last and budget > 0 do
  local totals = {}
  for _, node in ipairs(live) do
    local some = call('HGETALL', P .. 'rec:' .. slot .. ':' .. node) or {}
    budget = budget - 0.3 - #some / 4
    for i = 1, #some, 2 do
      if string.sub(some[i], 1, #prefix) == prefix then
        local count = tonumber(string.match(some[i + 1], '^(%d+) ')) or 0
        totals[some[i]] = (totals[some[i]] or 0) + count
      end
    end
  end
  for topic, total in pairs(totals) do
    if total > 0 then
      local present, cost = 0, 0
      if string.find(topic, ':presence-', 1, true) then
        present, cost = users(slot, topic)
        budget = budget - cost
      end
      answer[#answer + 1] = topic
      answer[#answer + 1] = total
      answer[#answer + 1] = present
    end
  end
  slot = slot + 1
end
answer[2] = slot
return answer
