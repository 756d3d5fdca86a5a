-- Publishes an event for one consumer, unless its worker has noted that its inbox is full.
--
-- KEYS[1]  the note: exists while the consumer is full
-- ARGV[1]  the channel of the consumer's worker
-- ARGV[2]  the event
--
-- Returns the number of workers that received it: 1, or 0 if that worker has ended (in a Redis Cluster: as far as this
-- node knows); -1 if the inbox is full.

if redis.call('EXISTS', KEYS[1]) == 1 then
  return -1
end
return redis.call('PUBLISH', ARGV[1], ARGV[2])
