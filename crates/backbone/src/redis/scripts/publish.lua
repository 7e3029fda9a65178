-- Appends a batch of publications of one lane to the log and publishes them, in that order: a server that is read-only then
-- refuses before anybody has heard anything. Trims first, so that a full server still takes it.
--
-- ARGV  4 lane  5 number of the first item  6 '1' when a gap before it is meant  7 entries the log keeps  8 its age in ms
--       9 the highest counter among the node's own publications of the batch (0 none)
--       then per item: topic, message (empty: withdrawn), spec
-- spec  '' or words 'KIND=VALUE;': c ttl in ms of the cached event, a age in ms when it is sent again, k key under which it is
--       published once, o part of the outbox, m entries that it keeps and s socket id of a client's event
-- Answers epoch, last number of the lane in the log, id of the entry ('' when there was nothing to append).
local FIXED = 9 -- arguments before the items
local first, items = tonumber(ARGV[5]), (#ARGV - FIXED) / 3
local seq = redis.call('HMGET', P .. 'seq', ARGV[4], ARGV[4] .. '.last')
local last = tonumber(seq[1] or '0')
if first > last + 1 and ARGV[6] ~= '1' then
  return redis.error_reply('SEQGAP ' .. last)
end
if first + items - 1 <= last then
  return {epoch, last, ''}
end
local fields, out = {}, {}
for at = math.max(last + 1, first), first + items - 1 do
  local base = FIXED + 1 + (at - first) * 3
  local topic, message, spec = ARGV[base], ARGV[base + 1], ARGV[base + 2]
  local fresh = message ~= ''
  if fresh and spec ~= '' then
    local once = string.match(spec, 'k=(%x+);')
    if once then
      fresh = redis.call('SET', P .. 'once:' .. once, '1', 'NX', 'PX', 120000) and true or false
    end
  end
  if fresh then
    fields[#fields + 1] = topic
    fields[#fields + 1] = message
    out[#out + 1] = base
  end
end
local id = ''
if #out > 0 then
  trim(redis.call, ARGV[7], ARGV[8])
  id = redis.call('XADD', P .. 'log', '*', unpack(fields))
end
-- A publication that comes over from a lane of another group is older than what this one has.
local own = math.max(tonumber(ARGV[9]), tonumber(seq[2] or '0'))
redis.call('HSET', P .. 'seq', ARGV[4], first + items - 1, ARGV[4] .. '.last', string.format('%.0f', own))
if id ~= '' then
  redis.call('HSET', KEYS[1], 'head', id, 'count', count + 1)
end
for i = 1, #out do
  local base = out[i]
  local topic, message, spec = ARGV[base], ARGV[base + 1], ARGV[base + 2]
  if spec ~= '' then
    local ttl = tonumber(string.match(spec, 'c=(%d+);') or '0')
    if ttl > 0 then
      local key = P .. 'cache:' .. topic
      local age = tonumber(string.match(spec, 'a=(%d+);') or '0')
      local is_newer = true
      if age > 0 then
        local there = redis.call('GET', key)
        local accepted = tonumber(string.match(id, '^%d+')) - age
        is_newer = not there or tonumber(string.match(there, '^%d+') or '0') < accepted
      end
      if is_newer and ttl > age then
        redis.call('SET', key, id .. '.' .. i - 1 .. '|' .. message, 'PX', ttl - age)
      end
    end
    local part = string.match(spec, 'o=(%d+);')
    if part then
      leave(P .. 'outbox:' .. part, tonumber(string.match(spec, 'm=(%d+);')), true, 'w', 'ce', 't', topic,
        'f', string.sub(message, 63), 'i', string.sub(message, 3, 18), 's', string.match(spec, 's=([%d%.]+);') or '')
    end
  end
end
-- Nobody subscribes to topics on a replica: it has the log, and need not be sent every message a second time.
redis.set_repl(redis.REPL_NONE)
local channel, place = P .. 't:', id .. '.'
for i = 1, #out do
  publish(channel .. ARGV[out[i]], place .. i - 1 .. '|' .. ARGV[out[i] + 1])
end
return {epoch, first + items - 1, id}
