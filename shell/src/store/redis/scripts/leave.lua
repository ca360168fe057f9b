-- KEYS: nodes, meta, inbox. ARGV: node, generation.
if not in_force(KEYS[1], ARGV[2]) then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], 'L')
close(KEYS[2], KEYS[3], ARGV[1])
return 1
