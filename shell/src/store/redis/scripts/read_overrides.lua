-- KEYS: meta, overrides.
local versions = redis.call('HMGET', KEYS[1], 'generation', 'overrides')
return { 0, versions[1], versions[2], redis.call('HGETALL', KEYS[2]) }
