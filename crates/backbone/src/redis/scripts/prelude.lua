-- Begins every script. KEYS[1] is the group's own hash, ARGV[1..3] are its identity, the run id of the server as the node
-- knows it, and the highest epoch the node knows (and the state of its slots, see `owned.lua`). A server that is not what the
-- node takes it for changes nothing.
local P = string.sub(KEYS[1], 1, -6) -- "DEPLOYMENT:", since the hash is called "DEPLOYMENT:group"
-- In Redis Cluster that is "{DEPLOYMENT.SHARE}:", and messages stay with the servers of the tag's slot.
local PUBLISH = string.sub(P, 1, 1) == '{' and 'SPUBLISH' or 'PUBLISH'
local function publish(channel, message) return redis.call(PUBLISH, channel, message) end
-- A key of the wrong type is damage that the audit mends: it reads as nothing and must not stop a call half-way.
local function call(...)
  local reply = redis.pcall(...)
  if type(reply) == 'table' and reply.err then return nil, reply.err end
  return reply
end
local group = call('HMGET', KEYS[1], 'id', 'run', 'epoch', 'head', 'slots', 'count')
if not group or not group[1] then return redis.error_reply('NOIDENTITY group has no identity') end
if group[1] ~= ARGV[1] then return redis.error_reply('WRONGGROUP ' .. group[1]) end
local epoch = tonumber(group[3]) or 0
if (tonumber(string.match(ARGV[3], '^%d+')) or 0) > epoch then return redis.error_reply('STALEEPOCH ' .. epoch) end
-- How many entries the log was ever given: what tells whether one that is read again still has all that was missed.
local count = tonumber(group[6]) or 0
local head = group[4]
if group[2] ~= ARGV[2] then
  epoch = epoch + 1
  redis.call('HSET', KEYS[1], 'run', ARGV[2], 'epoch', epoch, 'began', count .. ' ' .. (head or '0-0'))
end
-- The id of the log's last entry. Read from the log only where nobody has written it down: entries can be large.
local function head_id()
  if not head then
    local last = call('XREVRANGE', P .. 'log', '+', '-', 'COUNT', 1)
    head = last and last[1] and last[1][1] or '0-0'
  end
  return head
end
