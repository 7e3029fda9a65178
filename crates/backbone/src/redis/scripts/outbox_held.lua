-- Goes on only where the node has the part under this fence. ARGV[4..6]: part, node, fence.
local part, node, fence = ARGV[4], ARGV[5], ARGV[6]
local claim = redis.call('HMGET', P .. 'claim:' .. part, 'node', 'fence')
if claim[1] ~= node or claim[2] ~= fence then
  return redis.error_reply('NOTCLAIMED the part is worked by ' .. (claim[1] or 'nobody'))
end
