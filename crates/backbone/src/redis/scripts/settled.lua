-- Who has compared its records with its truth in this epoch, and since the last damage that was found: all nodes with a lease
-- (then one more than how many those are), the one named (1), or not even that one (0). A group that has lost everything knows
-- of few nodes at first: whoever asks must know how many there should be.
local function since_damage() return epoch .. ' ' .. (call('HGET', KEYS[1], 'damage') or '0') end
local function settled(mine)
  local since = since_damage()
  if mine and call('HGET', P .. 'settled', mine) ~= since then return 0 end
  local names = call('HKEYS', P .. 'nodes') or {}
  if #names == 0 then return 1 end
  local all = call('HMGET', P .. 'settled', unpack(names)) or {}
  for i = 1, #names do
    if all[i] ~= since then return 1 end
  end
  return 1 + #names
end
-- Of a slot that another group has, that one knows.
local function is_others(slot) return string.sub(call('HGET', P .. 'slots', slot) or '', 1, 3) == 'to:' end
