-- Makes room in the log before something is appended, so that a full server still takes it. `call` is what runs a command: one that
-- fails stops the whole script, or is nothing.
--
-- For their age at most so many entries go in one call: as many as Redis lets a trim like this remove where no LIMIT is named. After
-- a time in which nobody could publish most of the log is old, and whoever publishes first would free all of that at once, here and on
-- each replica, while every node reads what it missed. The rest goes with the next calls.
local TRIMMED_MAX = 10000
local function trim(call, entries_max, age_ms)
  local log = P .. 'log'
  call('XTRIM', log, 'MAXLEN', '~', entries_max)
  -- A sixteenth of the log stays whatever its age: after such a time it is what nodes have yet to read.
  local older = (call('XLEN', log) or 0) - math.floor(entries_max / 16)
  -- To Redis a limit of 0 means that there is none.
  if older > 0 then
    local oldest = string.format('%.0f', math.max(0, redis.call('TIME')[1] * 1000 - age_ms))
    call('XTRIM', log, 'MINID', '~', oldest, 'LIMIT', math.min(older, TRIMMED_MAX))
  end
end
