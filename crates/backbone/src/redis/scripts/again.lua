-- Leaves edges in the outbox again that this server never had: those of calls of this node behind the last one that it knows.
-- ARGV[6] is the number of entries that a part keeps, ARGV[7] the last call of those that follow ("" only asks), then for each
-- edge: call, part, the place it had, 1 if it only informs, how many fields and values, and those. It keeps its generation, and so
-- whatever comes of it its identity.
-- Answers the epoch, and the last call that the server knew before.
local calls = P .. 'calls'
local last = tonumber(call('HGET', calls, node) or '0') or 0
local i = 8
while i < #ARGV do
  local count = tonumber(ARGV[i + 4])
  if tonumber(ARGV[i]) > last then
    local fields = { unpack(ARGV, i + 5, i + 4 + count) }
    fields[#fields + 1] = 'g'
    fields[#fields + 1] = ARGV[i + 2]
    leave(P .. 'outbox:' .. ARGV[i + 1], tonumber(ARGV[6]), ARGV[i + 3] == '1', unpack(fields))
  end
  i = i + 5 + count
end
if ARGV[7] ~= '' and tonumber(ARGV[7]) > last then put(calls, node, ARGV[7]) end
return { epoch, last }
