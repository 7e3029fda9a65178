-- Removes keys of nodes that have no lease: ARGV[4..] node ("" removes in any case), key, node, key ... Answers the epoch and
-- how many there were.
local swept = 0
for i = 4, #ARGV, 2 do
  if ARGV[i] == '' or call('HEXISTS', P .. 'nodes', ARGV[i]) == 0 then
    swept = swept + (call('UNLINK', ARGV[i + 1]) or 0)
  end
end
return { epoch, swept }
