-- Writes what the worker of a part of the outbox decided, all of it or nothing. ARGV[4..7]: part, node, fence, requests that
-- were given up and are kept; then operations: a letter and one or two values. Answers the epoch and how often the part was written.
local outbox, sealed, given_up = P .. 'outbox:' .. part, P .. 'sealed:' .. part, P .. 'givenup:' .. part
local announced, partly = P .. 'announced:' .. part, P .. 'partly:' .. part
local done = {}
local does = {
  D = { 2, function(place, id)
    redis.call('XDEL', outbox, place)
    done[#done + 1] = id
  end },
  O = { 1, function(id) redis.call('HDEL', sealed, id) end },
  F = { 1, function(place) redis.call('HDEL', announced, place) end },
  Q = { 1, function(id) redis.call('HDEL', partly, id) end },
  S = { 2, function(id, request) redis.call('HSET', sealed, id, request) end },
  A = { 2, function(place, generation) redis.call('HSET', announced, place, generation) end },
  P = { 2, function(id, urls) redis.call('HSET', partly, id, urls) end },
  G = { 1, function(request)
    redis.call('LREM', given_up, 1, request)
    redis.call('LPUSH', given_up, request)
    redis.call('LTRIM', given_up, 0, ARGV[7] - 1)
  end },
}
local at = 8
while ARGV[at] do
  local operation = does[ARGV[at]]
  operation[2](ARGV[at + 1], ARGV[at + 2])
  at = at + 1 + operation[1]
end
note_done(part, P .. 'claim:' .. part, done)
return { epoch, redis.call('HINCRBY', P .. 'claim:' .. part, 'writes', 1) }
