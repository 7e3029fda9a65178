-- Refuses what was asked by a node that knows another state of the group's slots: who has which slot has changed since, and
-- the node reads that anew before it asks again. ARGV[3] is the highest epoch, a space, and the state that the node knows.
if (group[5] or '0') ~= string.match(ARGV[3], ' (%d+)$') then
  return redis.error_reply('OTHERSLOTS ' .. (group[5] or '0'))
end
