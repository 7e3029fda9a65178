-- Appends to the log, then publishes: `said` is topic, message, topic, message ... One entry for the whole call.
-- Trims first, so that a full server still takes it.
local function append(said, age_ms, entries_max)
  if #said == 0 then return end
  local log = P .. 'log'
  local now = redis.call('TIME')
  local oldest = string.format('%.0f', math.max(0, tonumber(now[1]) * 1000 - age_ms))
  call('XTRIM', log, 'MAXLEN', '~', entries_max)
  call('XTRIM', log, 'MINID', '~', oldest)
  local id, failed = call('XADD', log, '*', unpack(said))
  if not id and not string.find(failed or '', 'OOM', 1, true) then
    -- Not a stream, or one whose ids are used up: nothing of it can be read.
    call('DEL', log)
    id = redis.call('XADD', log, '*', unpack(said))
  elseif not id then
    return failed
  end
  head = id
  call('HSET', KEYS[1], 'head', id)
  for i = 1, #said, 2 do
    redis.call('PUBLISH', P .. 't:' .. said[i], id .. '.' .. (i - 1) / 2 .. '|' .. said[i + 1])
  end
end
