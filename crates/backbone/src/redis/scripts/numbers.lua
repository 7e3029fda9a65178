-- The last number of a node's lane in the log, from the hash `key`: 0 where the log has nothing of it, and nil where that cannot be
-- told from a number that was removed.
--
-- Numbers go with the other marks of a node that was taken for dead, an hour later (`reap.lua`). Some such node was only stopped, and
-- comes back with what it sent before still in its hands. Where a group has lost its data that must be appended again; here it lies in
-- the log, or did, and was heard so long ago that nobody remembers it: appended again, it would pass for new. What tells the two
-- apart is the server's clock: `until_s` is, in its seconds, half the time of the marks after the node last showed itself here, when its
-- lease was renewed or it took the server into use. Marks can only be older than that and then some, so up to there a number that is
-- missing was lost. Later its node must not append anything before it has dropped what a log was sent.
local function last_number(key, lane, until_s)
  local last = tonumber(redis.call('HGET', key, lane) or '')
  if last then return last end
  local now = tonumber(redis.call('TIME')[1])
  if now > (tonumber(until_s) or now) then return nil end
  return 0
end
