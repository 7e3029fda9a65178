-- Writes what the worker of a part of the outbox decided, all of it or nothing. ARGV[4..7]: part, node, fence, requests that
-- were given up and are kept; then operations: a letter and one or two values. Answers the epoch and how often the part was written.
local outbox, sealed = P .. 'outbox:' .. part, P .. 'sealed:' .. part
local announced, partly = P .. 'announced:' .. part, P .. 'partly:' .. part
local done = {}
carry_out({
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
  G = { 1, function(request) give_up(part, request, ARGV[7]) end },
}, 8)
note_done(part, P .. 'claim:' .. part, done)
return { epoch, redis.call('HINCRBY', P .. 'claim:' .. part, 'writes', 1) }
