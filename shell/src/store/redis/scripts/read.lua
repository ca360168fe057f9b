-- KEYS: meta, records. ARGV: user.
local versions = redis.call('HMGET', KEYS[1], 'generation', 'overrides')
return { versions[1], versions[2], redis.call('HGET', KEYS[2], ARGV[1]) }
