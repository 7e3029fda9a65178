-- Reads a share of the log, and of it what is about the given topics.
--
-- ARGV  4 first id, inclusive  5 entries looked at, at most  6 bytes looked at, about  7.. topics; none: everything
-- Answers epoch, the last id looked at ('' when the end was reached), the server's time in milliseconds, whether the first id is
-- there (1), how many entries the log was ever given, how many it has, how many it had been given when the epoch began, and the id
-- of the last of those, then id, topic, message for each that was found.
local SOME = 8 -- entries that are read at once, at most
local entries_max, bytes_max = tonumber(ARGV[5]), tonumber(ARGV[6])
local wanted = nil
if #ARGV > 6 then
  wanted = {}
  for i = 7, #ARGV do
    wanted[ARGV[i]] = true
  end
end
local now = redis.call('TIME')
local answer = {epoch, '', now[1] * 1000 + math.floor(now[2] / 1000), 0, count, call('XLEN', P .. 'log') or 0}
local began, began_at = string.match(call('HGET', KEYS[1], 'began') or '', '^(%d+) (%S+)$')
answer[7], answer[8] = tonumber(began) or 0, began_at or '0-0'
local from, looked, bytes = ARGV[4], 0, 0
repeat
  -- As many as there is room for if they are like those before them: one can be half a megabyte.
  local fitting = looked == 0 and 1 or math.floor((bytes_max - bytes) * looked / bytes)
  local asked = math.max(1, math.min(SOME, entries_max - looked, fitting))
  local entries = call('XRANGE', P .. 'log', from, '+', 'COUNT', asked) or {}
  if looked == 0 and entries[1] and entries[1][1] == ARGV[4] then answer[4] = 1 end
  for i = 1, #entries do
    local id, fields = entries[i][1], entries[i][2]
    for at = 1, #fields, 2 do
      bytes = bytes + #fields[at] + #fields[at + 1]
      if not wanted or wanted[fields[at]] then
        answer[#answer + 1] = id .. '.' .. (at - 1) / 2
        answer[#answer + 1] = fields[at]
        answer[#answer + 1] = fields[at + 1]
      end
    end
  end
  looked = looked + #entries
  answer[2] = #entries == asked and entries[#entries][1] or ''
  from = '(' .. answer[2]
  -- The first is the last of the share before it: with that alone nobody would come further.
until answer[2] == '' or looked >= entries_max or (looked > 1 and bytes >= bytes_max)
return answer
