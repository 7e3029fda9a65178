-- Lets parts of the outbox go. ARGV[4..5]: node, and 1 if it shares the work no longer; then parts, each with its fence.
local node = ARGV[4]
if ARGV[5] == '1' then redis.call('HDEL', P .. 'claimants', node) end
local at = 6
while ARGV[at] do
  local key = P .. 'claim:' .. ARGV[at]
  local claim = redis.call('HMGET', key, 'node', 'fence')
  -- The fence stays: the next one is higher.
  if claim[1] == node and claim[2] == ARGV[at + 1] then redis.call('HDEL', key, 'node', 'until') end
  at = at + 2
end
return { epoch }
