-- A heartbeat over every subscription of the group, carrying the id of the log's last entry; and, behind an N, how many entries it
-- was ever given, and the epoch.
-- Answers epoch, that id.
publish(P .. 'pulse', 'P' .. head_id())
publish(P .. 'pulse', 'N' .. count .. ' ' .. epoch)
return {epoch, head_id()}
