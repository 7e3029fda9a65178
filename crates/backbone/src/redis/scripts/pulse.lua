-- A heartbeat over every subscription of the group, carrying the id of the log's last entry.
-- Answers epoch, that id.
publish(P .. 'pulse', 'P' .. head_id())
return {epoch, head_id()}
