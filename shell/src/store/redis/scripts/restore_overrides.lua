-- KEYS: meta, overrides, nodes. ARGV: generation, version; for each user: user, value.
local versions = redis.call('HMGET', KEYS[1], 'generation', 'overrides')
local is_in_force, gate = in_force(KEYS[3], ARGV[1])
local is_written = 0
if is_in_force and gate == 'closed' and versions[1] and (versions[2] or NO_OVERRIDES) < ARGV[2] then
  is_written, versions[2] = 1, ARGV[2]
  redis.call('HSET', KEYS[1], 'overrides', ARGV[2])
  redis.call('DEL', KEYS[2])
  for i = 3, #ARGV, 2 do redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1]) end
end
return { is_written, versions[1], versions[2], redis.call('HGETALL', KEYS[2]) }
