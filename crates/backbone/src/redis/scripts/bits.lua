-- Bits of the kinds of edges that are wanted of a topic, as `EventKind` numbers them, and of "subscribers are told the count".
local CO, CV, MA, MR, CM, SC, UO, UF, COUNTED = 0, 1, 2, 3, 5, 6, 7, 8, 15
local function wants(bits, kind) return math.floor(bits / 2 ^ kind) % 2 == 1 end
local function is_user(topic) return string.find(topic, '::', 1, true) ~= nil end
