-- Everybody present on a channel: ARGV[4] topic, ARGV[5] slot. Answers the epoch, the log's head, how settled it is (2: absence
-- means something), and users with `SINCE INFO`, node by node.
return { epoch, head_id(), settled(nil), roster(ARGV[5], ARGV[4]) }
