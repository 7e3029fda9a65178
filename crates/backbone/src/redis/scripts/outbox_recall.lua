-- Gives a part of the outbox back what the node remembers that worked it when the store lost everything, or went back.
-- ARGV[4..11]: part, its birth as the node saw it after that, node, how often the part was written as the node saw it, and as it knows it,
-- 1 in the first of several calls, 1 in the last, and requests that were given up and are kept; then operations: a letter and one or two
-- values.
-- What was announced, is sealed and is told in part is as the node remembers it, unless somebody has written since; then what is there
-- stays. Whoever else has begun to work the part loses it, to read it anew.
-- Answers the epoch, and 1 if it was done, 2 if it need not be, because the part was written more often than the node knows, and 0 if it was
-- lost once more: the node learns of it at its next turn.
local part, node = ARGV[4], ARGV[6]
local claim = P .. 'claim:' .. part
local found = redis.call('HMGET', claim, 'node', 'born', 'writes')
if found[2] ~= ARGV[5] then return { epoch, 0 } end
local writes, known = tonumber(found[3] or '0') or 0, tonumber(ARGV[8])
if ARGV[9] == '1' then
  if writes > known then return { epoch, 2 } end
  if writes == tonumber(ARGV[7]) then
    for _, name in ipairs({ 'announced:', 'sealed:', 'partly:' }) do redis.call('UNLINK', P .. name .. part) end
  end
end
local done = {}
local function keep(name, field, value)
  local key = P .. name .. ':' .. part
  if redis.call('HEXISTS', key, field) == 0 then redis.call('HSET', key, field, value) end
end
carry_out({
  A = { 2, function(place, generation) keep('announced', place, generation) end },
  S = { 2, function(id, request) keep('sealed', id, request) end },
  P = { 2, function(place, urls) keep('partly', place, urls) end },
  E = { 1, function(id) done[#done + 1] = id end },
  G = { 1, function(request) give_up(part, request, ARGV[11]) end },
}, 12)
note_done(part, claim, done)
-- Not before all is there: what goes back once more in between is seen to have done so.
if ARGV[10] == '1' and writes < known then redis.call('HSET', claim, 'writes', ARGV[8]) end
if found[1] and found[1] ~= node then redis.call('HDEL', claim, 'node', 'until') end
-- What was announced and is here only now was compared with nothing yet.
redis.call('HDEL', claim, 'compared')
return { epoch, 1 }
