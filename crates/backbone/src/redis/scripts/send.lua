-- Appends and publishes messages that no record belongs to. ARGV[4..5]: age in ms and entries that the log keeps; then
-- topic, message, topic, message ...
local messages = {}
for i = 6, #ARGV do messages[#messages + 1] = ARGV[i] end
append(messages, tonumber(ARGV[4]), ARGV[5])
return { epoch, head_id() }
