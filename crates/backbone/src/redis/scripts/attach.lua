-- Makes sure that this is the group it is believed to be, takes it into use under the server's run id, and says where it
-- stands. Has no prelude: the identity may be missing, and a new run id is what it is for. KEYS[1] is the group's hash.
--
-- ARGV  1 identity  2 run id  3 highest epoch known  4 '1' when a server without identity may be taken for the group's
--       5 names of all groups  6 node ('' for who is none)  7 until when a number that is missing was lost (`numbers.lua`; '' for a
--       node that is here for the first time)  8.. lanes
-- Answers epoch, id of the log's last entry, the slot map ('' where nobody has written one), the server's clock in seconds, then the
-- last number of each lane: -1 where it may have been removed.
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
local now = redis.call('TIME')[1]
-- A node that was taken for dead is here: its marks, and with them the numbers that it is told now, stay for their whole time again,
-- in which it renews its lease.
local fence = ARGV[6] ~= '' and redis.pcall('HGET', P .. 'fence', ARGV[6])
if type(fence) == 'string' and string.sub(fence, 1, 6) == 'reaped' then
  redis.call('HSET', P .. 'fence', ARGV[6], 'reaped ' .. now)
end
local answer = {epoch, g[5] or '0-0', map or '', tonumber(now)}
for i = 8, #ARGV do
  answer[#answer + 1] = last_number(P .. 'seq', ARGV[i], ARGV[7]) or -1
end
return answer
