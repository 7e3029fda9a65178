-- Notes that entries of a part are done with, by the identities of their events: they may be left again, or come back with a store that
-- has gone back. There are two halves, of which the older goes when the other has been written to for a minute, or is full.
local function note_done(part, claim, ids)
  if #ids == 0 then return end
  local clock = redis.call('TIME')
  local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
  local known = redis.call('HMGET', claim, 'half', 'half_since')
  local half, since = tonumber(known[1]) or 0, tonumber(known[2]) or 0
  local key = P .. 'done:' .. half .. ':' .. part
  if now - since > 60000 or now < since or (call('HLEN', key) or 0) >= 16384 then
    half = 1 - half
    key = P .. 'done:' .. half .. ':' .. part
    redis.call('UNLINK', key)
    redis.call('HSET', claim, 'half', half, 'half_since', string.format('%.0f', now))
  end
  for _, id in ipairs(ids) do redis.call('HSET', key, id, '1') end
  redis.call('PEXPIRE', key, 120000)
end
