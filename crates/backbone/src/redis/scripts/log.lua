-- Appends to the log, then publishes: `said` is topic, message, topic, message ... One entry for the whole call, unless there is
-- more than Lua can unpack. Trims first, so that a full server still takes it.
local function append(said, age_ms, entries_max)
  if #said == 0 then return end
  local log = P .. 'log'
  local now = redis.call('TIME')
  local oldest = string.format('%.0f', math.max(0, tonumber(now[1]) * 1000 - age_ms))
  call('XTRIM', log, 'MAXLEN', '~', entries_max)
  -- A sixteenth stays whatever its age, as in `publish.lua`.
  local older = (call('XLEN', log) or 0) - math.floor(entries_max / 16)
  if older > 0 then call('XTRIM', log, 'MINID', '~', oldest, 'LIMIT', older) end
  local id, failed
  for from = 1, #said, 2000 do
    local to = math.min(from + 1999, #said)
    id, failed = call('XADD', log, '*', unpack(said, from, to))
    if not id and string.find(failed or '', 'OOM', 1, true) then return failed end
    if not id then
      -- Not a stream, or one whose ids are used up: nothing of it can be read.
      call('DEL', log)
      id = redis.call('XADD', log, '*', unpack(said, from, to))
    end
    count = count + 1
    for i = from, to, 2 do
      publish(P .. 't:' .. said[i], id .. '.' .. (i - from) / 2 .. '|' .. said[i + 1])
    end
  end
  head = id
  call('HSET', KEYS[1], 'head', id, 'count', count)
end
