-- A node has compared all its records. ARGV[6] is the number of damages it knew of before it began, ARGV[7] what it found:
-- "" nothing, or a text that other nodes are told so that they compare too.
local damages = call('HGET', KEYS[1], 'damage') or '0'
put(P .. 'settled', node, epoch .. ' ' .. ARGV[6])
if ARGV[7] ~= '' then
  damages = call('HINCRBY', KEYS[1], 'damage', 1) or damages
  call('PUBLISH', P .. 'pulse', ARGV[7])
end
return { epoch, damages }
