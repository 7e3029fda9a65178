-- Appends to the log, then publishes: `said` is topic, message, topic, message ... One entry for the whole call, unless there is
-- more than Lua can unpack. Trims first, so that a full server still takes it.
local function append(said, age_ms, entries_max)
  if #said == 0 then return end
  local log = P .. 'log'
  trim(call, entries_max, age_ms)
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
