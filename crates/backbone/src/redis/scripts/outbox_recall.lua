-- Gives a part of the outbox back what the node remembers that worked it when the store lost everything.
-- ARGV[4..7]: part, its birth as the node saw it after that, node, and which hash of the part: what was announced as come, or
-- requests that were sealed, or edges that are done with; then fields, each with its value. What is there stays.
-- Whoever else has begun to work the part loses it, to read it anew. Answers the epoch.
local part, claim = ARGV[4], P .. 'claim:' .. ARGV[4]
local found = redis.call('HMGET', claim, 'node', 'born')
-- Lost once more: the node learns of it at its next turn.
if found[2] ~= ARGV[5] then return { epoch } end
local key = P .. ARGV[7] .. ':' .. part
for at = 8, #ARGV, 2 do
  if redis.call('HEXISTS', key, ARGV[at]) == 0 then redis.call('HSET', key, ARGV[at], ARGV[at + 1]) end
end
-- Nodes leave edges again for half a minute.
if ARGV[7] == 'done' then redis.call('PEXPIRE', key, 60000) end
if found[1] and found[1] ~= ARGV[6] then redis.call('HDEL', claim, 'node', 'until') end
-- What was announced and is here only now was compared with nothing yet.
redis.call('HDEL', claim, 'compared')
return { epoch }
