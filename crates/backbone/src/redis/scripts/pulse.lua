-- A heartbeat over every subscription of the group, carrying the id of the log's last entry and how many it was ever given.
-- Answers epoch, that id.
publish(P .. 'pulse', 'P' .. head_id() .. ' ' .. count)
return {epoch, head_id()}
