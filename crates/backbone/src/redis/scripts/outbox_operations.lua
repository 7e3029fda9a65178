-- Carries out operations, from ARGV[at] on: a letter and its values each. `does` says of each letter how many values, and what is done.
local function carry_out(does, at)
  while ARGV[at] do
    local operation = does[ARGV[at]]
    operation[2](ARGV[at + 1], ARGV[at + 2])
    at = at + 1 + operation[1]
  end
end
-- Keeps a request aside that was given up; once, however often it is said.
local function give_up(part, request, kept_max)
  local key = P .. 'givenup:' .. part
  redis.call('LREM', key, 1, request)
  redis.call('LPUSH', key, request)
  redis.call('LTRIM', key, 0, kept_max - 1)
end
