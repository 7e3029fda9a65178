-- A step of moving slots. ARGV[4] is what the mover is known by: whoever is not the one whose name lies in the group changes
-- nothing. ARGV[5] is the step, then what it needs. Every step may be run again.
-- Answers the epoch and the state of the slots.
if call('GET', P .. 'mover') ~= ARGV[4] then
  return redis.error_reply('NOTMOVER another moves slots: ' .. (call('GET', P .. 'mover') or 'nobody'))
end
redis.call('PEXPIRE', P .. 'mover', 10000)
local slots, has_changed = P .. 'slots', false
-- Says who has a slot, unless something newer was said already.
local function say(slot, text, epoch)
  local there = redis.call('HGET', slots, slot) or ''
  local known = tonumber(string.match(there, ':(%d+)$') or '-1')
  if there ~= text and known <= tonumber(epoch) then
    redis.call('HSET', slots, slot, text)
    has_changed = true
  end
  return there
end
-- Whether it was not said yet that a slot has come, nor anything newer of it.
local function awaits(slot, epoch)
  local there = redis.call('HGET', slots, slot) or ''
  return there ~= 'own:' .. epoch and tonumber(string.match(there, ':(%d+)$') or '-1') <= tonumber(epoch)
end
local step = ARGV[5]
if step == 'map' then
  -- version, map
  local there = call('GET', P .. 'map') or ''
  local version = tonumber(string.match(there, '^version (%d+)\n') or '0')
  if version > tonumber(ARGV[6]) then return redis.error_reply('OLDMAP ' .. version) end
  redis.call('SET', P .. 'map', ARGV[7])
  -- As in the last step, which a mover that dies does not come to.
  if version < tonumber(ARGV[6]) then call('HINCRBY', KEYS[1], 'doubts', 1) end
elseif step == 'freeze' then
  -- group, epoch, slots
  for i = 8, #ARGV do
    if (redis.call('HGET', slots, ARGV[i]) or '') ~= 'own:' .. ARGV[7] then
      say(ARGV[i], 'to:' .. ARGV[6] .. ':' .. ARGV[7], ARGV[7])
    end
  end
elseif step == 'own' then
  -- epoch, slots
  for i = 7, #ARGV do say(ARGV[i], 'own:' .. ARGV[6], ARGV[6]) end
elseif step == 'fill' then
  -- epoch, then for each slot: slot, number of words, and what lay of it, as `filled.lua` puts it down
  local i = 7
  while ARGV[i] do
    local last = i + 1 + tonumber(ARGV[i + 1])
    if awaits(ARGV[i], ARGV[6]) then fill(ARGV[i], ARGV[6], i + 2, last) end
    i = last + 1
  end
elseif step == 'open' then
  -- epoch, slots
  local coming = {}
  for i = 7, #ARGV do
    if awaits(ARGV[i], ARGV[6]) then
      local words = filled(ARGV[i], ARGV[6])
      if not words then return redis.error_reply('NOTFILLED what lay of slot ' .. ARGV[i] .. ' is not here') end
      coming[ARGV[i]] = words
    end
  end
  for slot, words in pairs(coming) do
    put_down(slot, words)
    say(slot, 'own:' .. ARGV[6], ARGV[6])
  end
elseif step == 'close' then
  -- 'k' key, or 'e' outbox, number of values, values
  local i = 6
  while ARGV[i] do
    if ARGV[i] == 'e' then
      i = leave(ARGV, ARGV[i + 1], i + 2)
    else
      redis.call('UNLINK', ARGV[i + 1])
      i = i + 2
    end
  end
elseif step == 'end' then
  redis.call('DEL', P .. 'mover')
  -- What was told moved with the slots, and records of nodes that are nobody here may have: it is compared once more (see `sight.lua`).
  call('HINCRBY', KEYS[1], 'doubts', 1)
end
if has_changed then redis.call('HINCRBY', KEYS[1], 'slots', 1) end
return { epoch, tonumber(redis.call('HGET', KEYS[1], 'slots') or '0') }
