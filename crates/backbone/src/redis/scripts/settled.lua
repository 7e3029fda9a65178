-- Who has compared its records with its truth in this epoch, and since the last damage that was found: 2 all live nodes,
-- 1 the one named, 0 not even that one.
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
  return 2
end
