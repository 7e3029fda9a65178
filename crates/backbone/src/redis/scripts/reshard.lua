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
-- Leaves an entry in an outbox: its fields begin at ARGV[i], behind their number. Answers where the next word is.
local function leave(key, i)
  local last = i + tonumber(ARGV[i])
  if not call('XADD', key, '*', unpack(ARGV, i + 1, last)) then
    call('DEL', key)
    redis.call('XADD', key, '*', unpack(ARGV, i + 1, last))
  end
  return last + 1
end
local step = ARGV[5]
if step == 'map' then
  -- version, map
  local there = call('GET', P .. 'map') or ''
  local version = tonumber(string.match(there, '^version (%d+)\n') or '0')
  if version > tonumber(ARGV[6]) then return redis.error_reply('OLDMAP ' .. version) end
  redis.call('SET', P .. 'map', ARGV[7])
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
elseif step == 'open' then
  -- epoch, then for each slot 'n' slot, and its keys: 'h' key, number of values, values; 's' key, milliseconds, text; and
  -- 'e' outbox, number of values, values
  local i, opened, is_open = 7, {}, false
  while ARGV[i] do
    local kind, key = ARGV[i], ARGV[i + 1]
    local count = (kind == 'h' or kind == 'e') and tonumber(ARGV[i + 2]) or 0
    if kind == 'n' then
      is_open = redis.call('HGET', slots, key) == 'own:' .. ARGV[6]
      if not is_open then opened[#opened + 1] = key end
    elseif not is_open and kind == 'e' then
      leave(key, i + 2)
    elseif not is_open then
      redis.call('UNLINK', key)
      for at = i + 3, i + 2 + count, 2 do redis.call('HSET', key, ARGV[at], ARGV[at + 1]) end
      if kind == 's' then redis.call('SET', key, ARGV[i + 3], 'PX', ARGV[i + 2]) end
    end
    i = i + (kind == 'n' and 2 or kind == 's' and 4 or 3 + count)
  end
  for _, slot in ipairs(opened) do say(slot, 'own:' .. ARGV[6], ARGV[6]) end
elseif step == 'close' then
  -- 'k' key, or 'e' outbox, number of values, values
  local i = 6
  while ARGV[i] do
    if ARGV[i] == 'e' then
      i = leave(ARGV[i + 1], i + 2)
    else
      redis.call('UNLINK', ARGV[i + 1])
      i = i + 2
    end
  end
elseif step == 'end' then
  redis.call('DEL', P .. 'mover')
end
if has_changed then redis.call('HINCRBY', KEYS[1], 'slots', 1) end
return { epoch, tonumber(redis.call('HGET', KEYS[1], 'slots') or '0') }
