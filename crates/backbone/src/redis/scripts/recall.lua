-- Gives a group back what it has lost: the map, and what it said of its slots, as a node remembers them. Whatever is newer there
-- stays. What a slot is to have that has come is put down then, where it lies ready. ARGV[4] is the version of the map, ARGV[5] the
-- map, ARGV[6] the state of the slots that the node knows, then slots with what is said of each. Answers the epoch.
local there = string.match(call('GET', P .. 'map') or '', '^version (%d+)\n') or '0'
if tonumber(ARGV[4]) > tonumber(there) then redis.call('SET', P .. 'map', ARGV[5]) end
if tonumber(group[5] or '0') < tonumber(ARGV[6]) then
  local slots = P .. 'slots'
  for i = 7, #ARGV, 2 do
    local said = call('HGET', slots, ARGV[i]) or ''
    local function since(text) return tonumber(string.match(text, ':(%d+)$') or '-1') end
    if since(ARGV[i + 1]) > since(said) then
      local epoch = string.match(ARGV[i + 1], '^own:(%d+)$')
      local words = epoch and filled(ARGV[i], epoch)
      if words then put_down(ARGV[i], words) end
      redis.call('HSET', slots, ARGV[i], ARGV[i + 1])
    end
  end
  redis.call('HSET', KEYS[1], 'slots', ARGV[6] + 1)
end
return { epoch }
