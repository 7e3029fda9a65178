-- A node has compared all its records. ARGV[6] is the number of damages it knew of before it began, ARGV[7] whether it found
-- another (1), ARGV[8] a text that other nodes are told then ("" none).
put(P .. 'settled', node, epoch .. ' ' .. ARGV[6])
if ARGV[7] == '1' then
  call('HINCRBY', KEYS[1], 'damage', 1)
  if ARGV[8] ~= '' then publish(P .. 'pulse', ARGV[8]) end
end
return { epoch }
