-- Notes that entries of a part are done with, by the identities of their events: they may be left again for half a minute, or come back
-- with a store that has gone back. There are four hashes that take turns, each for ten seconds; one that is full begins anew.
local function note_done(part, claim, ids)
  if #ids == 0 then return end
  local TURN_MS, TURNS, TURN_MAX, KEPT_MS = 10000, 4, 16384, 31000
  local clock = redis.call('TIME')
  local turn = math.floor((clock[1] * 1000 + math.floor(clock[2] / 1000)) / TURN_MS)
  local key = P .. 'done:' .. turn % TURNS .. ':' .. part
  if redis.call('HGET', claim, 'turn') ~= tostring(turn) or (call('HLEN', key) or 0) >= TURN_MAX then
    redis.call('UNLINK', key)
    redis.call('HSET', claim, 'turn', turn)
  end
  for _, id in ipairs(ids) do redis.call('HSET', key, id, '1') end
  redis.call('PEXPIRE', key, KEPT_MS)
end
