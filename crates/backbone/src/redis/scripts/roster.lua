-- Everybody present on a channel: ARGV[4] topic, ARGV[5] slot. Answers the epoch, the log's head, how settled it is (see
-- `settled.lua`; not at all where slots have come and gone since this node looked, or this one has), and users with `SINCE INFO`, node by
-- node.
local is_known = (group[5] or '0') == string.match(ARGV[3], ' (%d+)$') and not is_others(ARGV[5])
return { epoch, head_id(), is_known and settled(nil) or 1, roster(ARGV[5], ARGV[4]) }
