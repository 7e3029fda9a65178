-- Leaves an entry in a part of the outbox, which is bounded: where half of `entries_max` waits, what only informs is dropped, and
-- where all of it does, the oldest goes. What was dropped is counted in the group's hash. An edge may be among what went: what was told is
-- compared with the records once more when there is room again, for which a mark stays (see `outbox_turn.lua`). Answers the entry's place,
-- if it has one.
local function leave(key, entries_max, informs, ...)
  local waiting = call('XLEN', key) or 0
  if informs and waiting >= entries_max / 2 then
    call('HINCRBY', KEYS[1], 'dropped', 1)
    return nil
  end
  if waiting >= entries_max then
    local gone = call('XTRIM', key, 'MAXLEN', entries_max - 1) or 0
    if gone > 0 then
      call('HINCRBY', KEYS[1], 'dropped', gone)
      call('HSET', KEYS[1], 'cut:' .. string.match(key, '%d+$'), entries_max)
    end
  end
  local id = call('XADD', key, '*', ...)
  if not id then
    call('DEL', key)
    id = redis.call('XADD', key, '*', ...)
  end
  return id
end
