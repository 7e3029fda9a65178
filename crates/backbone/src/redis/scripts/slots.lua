-- The map and the group's slots. ARGV[4] is the version of the map and ARGV[5] the state of the slots that the node knows.
-- Answers the epoch, the state, the map where it is another ('' otherwise), slots with what is said of them, where the state is
-- another, and the version of the map (0 where nobody has written one).
local map = call('GET', P .. 'map') or ''
local version = string.match(map, '^version (%d+)\n') or '0'
if version == ARGV[4] then map = '' end
local slots = group[5] or '0'
local held = {}
if slots ~= ARGV[5] then held = call('HGETALL', P .. 'slots') or {} end
return { epoch, tonumber(slots), map, held, tonumber(version) }
