-- Gives a part of the outbox back what was announced as come, as the node remembers that worked it when the store lost everything.
-- ARGV[4..6]: part, its birth as the node saw it after that, node; then places, each with its generation. What is there stays.
-- Whoever else has begun to work the part loses it, to read it anew. Answers the epoch.
local part, claim = ARGV[4], P .. 'claim:' .. ARGV[4]
local found = redis.call('HMGET', claim, 'node', 'born')
-- Lost once more: the node learns of it at its next turn.
if found[2] ~= ARGV[5] then return { epoch } end
local announced = P .. 'announced:' .. part
for at = 7, #ARGV, 2 do
  if redis.call('HEXISTS', announced, ARGV[at]) == 0 then redis.call('HSET', announced, ARGV[at], ARGV[at + 1]) end
end
if found[1] and found[1] ~= ARGV[6] then redis.call('HDEL', claim, 'node', 'until') end
return { epoch }
