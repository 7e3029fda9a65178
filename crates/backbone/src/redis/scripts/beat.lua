-- Renews a node's lease. ARGV[4] is the node, ARGV[5] the number of its connection, ARGV[6] the lease, ARGV[7] whether it has
-- no records at all (1): one that is new has nothing to look after, and makes nobody else look.
-- Answers the epoch, the server's time, how the node was found (0 with a lease, 1 without one, 2 reaped), whether it (1) and all live
-- nodes (2) have looked after their records since the last damage, all leases, and how many edges the outbox had no room for.
local node = ARGV[4]
local fence = call('HGET', P .. 'fence', node)
local found = 0
if not fence then
  found = 1
elseif not tonumber(fence) then
  found = 2
end
if found > 0 or tonumber(fence) < tonumber(ARGV[5]) then
  if not call('HSET', P .. 'fence', node, ARGV[5]) then
    call('DEL', P .. 'fence')
    redis.call('HSET', P .. 'fence', node, ARGV[5])
  end
end
if not call('HSET', P .. 'nodes', node, ARGV[6]) then
  call('DEL', P .. 'nodes')
  redis.call('HSET', P .. 'nodes', node, ARGV[6])
end
if found == 1 and ARGV[7] == '1' then call('HSET', P .. 'settled', node, since_damage()) end
local leases = call('HGETALL', P .. 'nodes') or {}
local now = redis.call('TIME')
return { epoch, now[1], now[2], found, settled(node), leases, tonumber(call('HGET', KEYS[1], 'dropped') or '0') or 0 }
