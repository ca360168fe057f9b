-- KEYS: meta, overrides, nodes. ARGV: user, generation, floor of the node, epoch, version expected, version, value or '' for none.
local versions = redis.call('HMGET', KEYS[1], 'generation', 'overrides', ARGV[3])
local is_written = 0
if in_force(KEYS[3], ARGV[2]) and takes(versions, ARGV[2], ARGV[4]) and (versions[2] or NO_OVERRIDES) == ARGV[5] then
  is_written, versions[2] = 1, ARGV[6]
  redis.call('HSET', KEYS[1], 'overrides', ARGV[6])
  if ARGV[7] == '' then redis.call('HDEL', KEYS[2], ARGV[1]) else redis.call('HSET', KEYS[2], ARGV[1], ARGV[7]) end
end
return { is_written, versions[1], versions[2], redis.call('HGETALL', KEYS[2]) }
