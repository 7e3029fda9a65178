-- Gives a part of the outbox back what the node remembers that worked it when the store lost everything, or went back.
-- ARGV[4..9]: part, its birth as the node saw it after that, node, how often the part was written as the node saw it, and as it knows it,
-- and 1 in the first of several calls; then operations: a letter and one or two values.
-- What was announced is as the node remembers it, unless somebody has written since; anything else that is there stays.
-- Whoever else has begun to work the part loses it, to read it anew. Answers the epoch.
local part, node = ARGV[4], ARGV[6]
local claim = P .. 'claim:' .. part
local found = redis.call('HMGET', claim, 'node', 'born', 'writes')
-- Lost once more: the node learns of it at its next turn.
if found[2] ~= ARGV[5] then return { epoch } end
local writes = tonumber(found[3] or '0') or 0
if ARGV[9] == '1' and writes == tonumber(ARGV[7]) then redis.call('UNLINK', P .. 'announced:' .. part) end
local done = {}
local function keep(name, field, value)
  local key = P .. name .. ':' .. part
  if redis.call('HEXISTS', key, field) == 0 then redis.call('HSET', key, field, value) end
end
local does = {
  A = { 2, function(place, generation) keep('announced', place, generation) end },
  S = { 2, function(id, request) keep('sealed', id, request) end },
  P = { 2, function(place, urls) keep('partly', place, urls) end },
  E = { 1, function(id) done[#done + 1] = id end },
}
local at = 10
while ARGV[at] do
  local operation = does[ARGV[at]]
  operation[2](ARGV[at + 1], ARGV[at + 2])
  at = at + 1 + operation[1]
end
note_done(part, claim, done)
if writes < tonumber(ARGV[8]) then redis.call('HSET', claim, 'writes', ARGV[8]) end
if found[1] and found[1] ~= node then redis.call('HDEL', claim, 'node', 'until') end
-- What was announced and is here only now was compared with nothing yet.
redis.call('HDEL', claim, 'compared')
return { epoch }
