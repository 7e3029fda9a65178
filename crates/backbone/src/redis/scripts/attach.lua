-- Makes sure that this is the group it is believed to be, takes it into use under the server's run id, and says where it
-- stands. Has no prelude: the identity may be missing, and a new run id is what it is for. KEYS[1] is the group's hash.
--
-- ARGV  1 identity  2 run id  3 highest epoch known  4 '1' when a server without identity may be taken for the group's
--       5 names of all groups  6.. lanes
-- Answers epoch, id of the log's last entry, the slot map ('' where nobody has written one), then the last number of each lane.
local g = redis.call('HMGET', KEYS[1], 'id', 'run', 'epoch', 'groups', 'head', 'count')
local P = string.sub(KEYS[1], 1, -6)
local known = tonumber(ARGV[3])
local epoch = tonumber(g[3] or '0')
local map = redis.call('GET', P .. 'map')
if not g[1] then
  if ARGV[4] ~= '1' then
    return redis.error_reply('NOIDENTITY the server has no data of any group')
  end
  epoch = math.max(epoch, known) + 1
  redis.call('HSET', KEYS[1], 'id', ARGV[1], 'run', ARGV[2], 'epoch', epoch, 'groups', ARGV[5], 'began', '0 0-0')
elseif g[1] ~= ARGV[1] then
  return redis.error_reply('WRONGGROUP ' .. g[1])
elseif g[4] ~= ARGV[5] and not map then
  return redis.error_reply('OTHERGROUPS ' .. (g[4] or ''))
elseif g[2] ~= ARGV[2] then
  epoch = math.max(epoch, known) + 1
  -- Where its log stood: beyond that another server's may have gone on otherwise.
  redis.call('HSET', KEYS[1], 'run', ARGV[2], 'epoch', epoch, 'began', (g[6] or '0') .. ' ' .. (g[5] or '0-0'))
elseif epoch < known then
  return redis.error_reply('STALEEPOCH ' .. epoch)
end
local answer = {epoch, g[5] or '0-0', map or ''}
for i = 6, #ARGV do
  answer[#answer + 1] = tonumber(redis.call('HGET', P .. 'seq', ARGV[i]) or '0')
end
return answer
