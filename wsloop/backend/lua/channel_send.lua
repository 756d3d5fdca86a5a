-- Publish an event for one consumer, unless the worker that has it has noted that there is no room.
--
-- KEYS[1]  the note: exists while the consumer is full
-- ARGV[1]  the channel of the consumer's worker
-- ARGV[2]  what to publish there
--
-- Returns how many workers got it: 1, or 0 if that worker has ended (in a Redis Cluster: as far as this node knows);
-- -1 if there is no room.

if redis.call('EXISTS', KEYS[1]) == 1 then
  return -1
end
return redis.call('PUBLISH', ARGV[1], ARGV[2])
