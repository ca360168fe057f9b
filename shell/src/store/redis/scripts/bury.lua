-- KEYS: nodes, meta, inbox. ARGV: node, the number of its last beat or '' if its asker had this id, time.
if redis.call('HEXISTS', KEYS[1], 'generation') == 0 then return 0 end
local entry = redis.call('HGET', KEYS[1], ARGV[1])
local is_it = entry == 'B' .. ARGV[2]
if ARGV[2] == '' then is_it = not entry or is_alive(entry) end
if not is_it then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], 'D' .. ARGV[3])
close(KEYS[2], KEYS[3], ARGV[1])
return 1
