-- A heartbeat over every subscription of the group, carrying the id of the log's last entry.
--
-- KEYS  identity, log
-- ARGV  4 publish-subscribe channel
-- Answers epoch, that id.
local head = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)
local id = head[1] and head[1][1] or '0-0'
redis.call('PUBLISH', ARGV[4], 'P' .. id)
return {epoch, id}
