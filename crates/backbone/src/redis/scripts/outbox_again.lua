-- A request that was given up goes back to whoever works its part, as an entry of the outbox. ARGV[4..5]: part, the request as
-- it is in the list. Answers the epoch, and 1 if it was still there.
local given_up = P .. 'givenup:' .. ARGV[4]
if redis.call('LREM', given_up, 1, ARGV[5]) == 0 then return { epoch, 0 } end
redis.call('XADD', P .. 'outbox:' .. ARGV[4], '*', 'w', 'rp', 'j', ARGV[5])
return { epoch, 1 }
