-- What the absence of a record can be trusted for: since which damage that was found, and which death, loss of edges or move of slots, all
-- nodes with a lease have compared their records in this epoch; "" while they have not. Each is another text than all before.
local function sight()
  if settled() < 2 then return '' end
  return since_damage() .. ' ' .. (call('HGET', KEYS[1], 'doubts') or '0')
end
