-- Edges of this call: messages for subscribers, and entries of the outbox for those that an app's server wants to hear of.
local said, hooked = {}, {}
local function say(topic, message)
  said[#said + 1] = topic
  said[#said + 1] = message
end
local function hook(bits, kind, slot, what, topic, field, value)
  if not wants(bits, kind) then return end
  local entry = { slot % 16, kind == CM or kind == SC, 'w', what, 't', topic }
  if field then
    entry[7] = field
    entry[8] = value
  end
  hooked[#hooked + 1] = entry
end
local function hook_occupied(topic, slot, bits)
  if is_user(topic) then hook(bits, UO, slot, 'uo', topic) else hook(bits, CO, slot, 'co', topic) end
end
local function hook_vacated(topic, slot, bits)
  if is_user(topic) then hook(bits, UF, slot, 'uf', topic) else hook(bits, CV, slot, 'cv', topic) end
end
local function occupied(topic, slot, bits)
  if is_user(topic) then say(topic, 'O') end
  hook_occupied(topic, slot, bits)
end
local function vacated(topic, slot, bits)
  if is_user(topic) then say(topic, 'F') end
  hook_vacated(topic, slot, bits)
end
local function added(topic, slot, bits, user, presence)
  local since, info = string.match(presence, '^(%d+) (.*)$')
  say(topic, 'A' .. (since or 0) .. ' ' .. #user .. ':' .. user .. ' ' .. (info or ''))
  hook(bits, MA, slot, 'ma', topic, 'u', user)
end
local function removed(topic, slot, bits, user)
  say(topic, 'R' .. #user .. ':' .. user)
  hook(bits, MR, slot, 'mr', topic, 'u', user)
end
local function counted(topic, slot, bits, total)
  if wants(bits, COUNTED) then
    say(topic, 'C' .. total)
    hook(bits, SC, slot, 'sc', topic, 'n', total)
  end
end
-- Appends and publishes what was said, then leaves the outbox entries. Each is known by its own place there: several edges of one
-- call share a place in the log, and those of channels say nothing in it. Answers what was left: part, place, 1 if it only
-- informs, and the fields of each.
local function tell(age_ms, entries_max, outbox_max)
  append(said, age_ms, entries_max)
  local left = {}
  for _, entry in ipairs(hooked) do
    local id = leave(P .. 'outbox:' .. entry[1], outbox_max, entry[2], unpack(entry, 3))
    if id then left[#left + 1] = { entry[1], id, entry[2] and 1 or 0, unpack(entry, 3) } end
  end
  return left
end
