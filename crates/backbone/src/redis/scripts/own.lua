-- Begins what changes a node's own records. ARGV[4] is the node, ARGV[5] the number of its connection: what an older
-- connection left in the server's buffers must not undo what a newer one said. A node without a lease takes one first,
-- because what it says now would be seen by nobody.
local node, connection = ARGV[4], tonumber(ARGV[5])
local fence = call('HGET', P .. 'fence', node)
if not fence or not tonumber(fence) then return redis.error_reply('NOLEASE ' .. (fence or 'none')) end
if tonumber(fence) > connection then return redis.error_reply('STALECALL ' .. fence) end
if tonumber(fence) < connection then call('HSET', P .. 'fence', node, connection) end
-- Writes, also where damage has put something of another type.
local function put(key, ...)
  local done, failed = call('HSET', key, ...)
  if not done and failed and string.find(failed, 'WRONGTYPE', 1, true) then
    call('DEL', key)
    redis.call('HSET', key, ...)
  end
end
