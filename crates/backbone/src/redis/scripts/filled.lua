-- What lay of a slot where it comes from lies under one key here until it is said that the slot has come: no reader, audit, sweep or
-- worker of the outbox finds it there. Whoever says that the slot has come puts it down in the same step, and only once: whoever moves
-- it, or a node that says it again to a server that was told by nobody.
local function filled_key(slot) return P .. 'filled:' .. slot end
-- Keeps words ARGV[first] to ARGV[last], in place of what was kept before, with the epoch in which they are good and the time to
-- which milliseconds in them refer.
local function fill(slot, epoch, first, last)
  local now = redis.call('TIME')
  local words = { epoch, string.format('%.0f', now[1] * 1000 + math.floor(now[2] / 1000)) }
  for i = first, last do words[#words + 1] = ARGV[i] end
  redis.call('SET', filled_key(slot), cmsgpack.pack(words))
end
-- What is kept for this epoch; nothing where that is damaged.
local function filled(slot, epoch)
  local text = call('GET', filled_key(slot))
  local is_read, words = pcall(cmsgpack.unpack, text or '')
  return is_read and type(words) == 'table' and words[1] == epoch and words or nil
end
-- Leaves an entry in an outbox: its fields stand behind their number, which is words[i]. Answers where the next word is.
local function leave(words, key, i)
  local last = i + tonumber(words[i])
  if not call('XADD', key, '*', unpack(words, i + 1, last)) then
    call('DEL', key)
    redis.call('XADD', key, '*', unpack(words, i + 1, last))
  end
  return last + 1
end
-- Puts down what was kept: 'k' key that goes; 'h' key, number of values, values; 's' key, milliseconds, text; 'e' outbox, number of
-- values, values.
local function put_down(slot, words)
  local i = 3
  while words[i] do
    local kind, key, count = words[i], words[i + 1], tonumber(words[i + 2])
    if kind == 'e' then
      i = leave(words, key, i + 2)
    elseif kind == 'k' then
      redis.call('UNLINK', key)
      i = i + 2
    elseif kind == 'h' then
      redis.call('UNLINK', key)
      for at = i + 3, i + 2 + count, 2 do redis.call('HSET', key, words[at], words[at + 1]) end
      i = i + 3 + count
    else
      redis.call('SET', key, words[i + 3], 'PXAT', string.format('%.0f', words[2] + count))
      i = i + 4
    end
  end
  redis.call('UNLINK', filled_key(slot))
end
