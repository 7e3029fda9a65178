-- The cached event of a channel: ARGV[4] topic. Answers the epoch, the event, and how long it is still kept.
local key = P .. 'cache:' .. ARGV[4]
return { epoch, call('GET', key) or false, call('PTTL', key) or 0 }
