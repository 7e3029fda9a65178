-- One node's turn at the claims of the outbox, once a second. ARGV[4..8]: node, lease in ms, number of parts, the part to look
-- at first, and 1 if free parts are to be taken. Renews what the node has (whoever has it until somebody else takes it has it
-- still), and takes free parts up to the node's share. Answers the epoch, the time in ms, the number of nodes that share, the sight of
-- now (see `sight.lua`), of each part its birth (another one than before means that the store has lost everything) and how often it was
-- written (fewer times than before means that the store has gone back), and the node's parts, each with its fence and the sight in which
-- what it announced was compared with the records last ("" never).
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local node, lease, parts, first = ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local takes = ARGV[8] == '1'
local function whole(number) return string.format('%.0f', number) end
-- What a key of ours must be; anything else is damage, and would stop every write of the part.
local function mend(key, kind)
  local found = redis.call('TYPE', key).ok
  if found ~= 'none' and found ~= kind then redis.call('DEL', key) end
end

-- A part that was full and dropped edges has room again.
for part = 0, parts - 1 do
  local cut = tonumber(call('HGET', KEYS[1], 'cut:' .. part) or '')
  if cut and (call('XLEN', P .. 'outbox:' .. part) or 0) < cut / 2 then
    redis.call('HDEL', KEYS[1], 'cut:' .. part)
    redis.call('HINCRBY', KEYS[1], 'doubts', 1)
  end
end

local claimants = P .. 'claimants'
mend(claimants, 'hash')
if takes then redis.call('HSET', claimants, node, whole(now + lease)) else redis.call('HDEL', claimants, node) end
local live = 0
local names = redis.call('HGETALL', claimants)
for at = 1, #names, 2 do
  local ends = tonumber(names[at + 1]) or 0
  -- A clock that was ahead, on another server, must not keep a dead node alive.
  if ends > now + lease then redis.call('HSET', claimants, names[at], whole(now + lease)) end
  if ends <= now then redis.call('HDEL', claimants, names[at]) else live = live + 1 end
end

local reply, mine, free = { epoch, now, live, sight() }, 0, {}
for part = 0, parts - 1 do
  local key = P .. 'claim:' .. part
  mend(key, 'hash')
  local born = tonumber(redis.call('HGET', key, 'born') or '')
  if not born then
    born = now
    redis.call('HSET', key, 'born', whole(born))
  end
  reply[#reply + 1] = born
  reply[#reply + 1] = tonumber(redis.call('HGET', key, 'writes') or '0') or 0
end
local function hold(part, fence, compared)
  mine = mine + 1
  reply[#reply + 1] = part
  reply[#reply + 1] = fence
  reply[#reply + 1] = compared or ''
end
for step = 0, parts - 1 do
  local part = (first + step) % parts
  local key = P .. 'claim:' .. part
  local claim = redis.call('HMGET', key, 'node', 'fence', 'until', 'compared')
  local ends = tonumber(claim[3]) or 0
  if claim[1] == node and claim[2] then
    redis.call('HSET', key, 'until', whole(now + lease))
    hold(part, claim[2], claim[4])
  elseif not claim[1] or ends <= now then
    free[#free + 1] = { part, tonumber(claim[2]) or 0, claim[4] }
  elseif ends > now + lease then
    redis.call('HSET', key, 'until', whole(now + lease))
  end
end
if takes then
  local share = math.ceil(parts / math.max(live, 1))
  for _, found in ipairs(free) do
    if mine >= share then break end
    local part, fence = found[1], whole(math.max(found[2] + 1, now))
    redis.call('HSET', P .. 'claim:' .. part, 'node', node, 'fence', fence, 'until', whole(now + lease))
    mend(P .. 'outbox:' .. part, 'stream')
    mend(P .. 'givenup:' .. part, 'list')
    local hashes = { 'sealed:', 'announced:', 'partly:', 'noted:', 'done:0:', 'done:1:', 'done:2:', 'done:3:' }
    for _, name in ipairs(hashes) do mend(P .. name .. part, 'hash') end
    hold(part, fence, found[3])
  end
end
return reply
